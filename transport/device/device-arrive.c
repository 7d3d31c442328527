/* SPDX-License-Identifier: BSD-2-Clause */
/* device-arrive.c -- the destination receives device state in pieces, over any channel */

#include "device-arrive.h"

#include <string.h>

#include "base/fault.h"

VmfDevices *devices_expecting_locked(VmfSession *s)
{
    return s->devices->started ? s->devices : NULL;
}

DeviceArrival *device_find_arrival_locked(Device *device, uint32_t index)
{
    for (unsigned i = 0; i < device->set->window_buffers; i++) {
        if (device->arrivals[i].used && device->arrivals[i].index == index) {
            return &device->arrivals[i];
        }
    }
    return NULL;
}

/* --- what may arrive --- */

static bool check_piece(const Device *device, const VmfDeviceHeader *header, GError **error)
{
    const uint64_t most =
        header->flags & DEVICE_FLAG_CONFIG ? DEVICE_CONFIG_MAX + 1 : DEVICE_BUFFER_MAX;

    if (header->flags & ~DEVICE_FLAG_CONFIG) {
        return device_error(device, error, VMF_ERROR_PROTOCOL, "unknown flags 0x%x", header->flags);
    }
    if (header->index == UINT32_MAX && !(header->flags & DEVICE_FLAG_CONFIG)) {
        return device_error(device, error, VMF_ERROR_PROTOCOL,
                            "buffer %u is one more than can be counted", header->index);
    }
    if (header->total == 0 || header->total > most) {
        return device_error(device, error, VMF_ERROR_PROTOCOL,
                            "buffer %u has %" G_GUINT64_FORMAT " bytes; at most %" G_GUINT64_FORMAT
                            " are allowed",
                            header->index, header->total, most);
    }
    if (header->offset % DEVICE_PIECE || header->offset >= header->total ||
        header->size != MIN(header->total - header->offset, DEVICE_PIECE)) {
        return device_error(device, error, VMF_ERROR_PROTOCOL,
                            "buffer %u: a piece of %" G_GUINT64_FORMAT
                            " bytes at %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT,
                            header->index, header->size, header->offset, header->total);
    }
    return true;
}

/* Checks that a buffer with a place lies inside the window, and on no other buffer. */
static bool check_place(const Device *device, const VmfDeviceHeader *header, GError **error)
{
    const uint64_t window = device->set->window_bytes;
    const uint64_t inside =
        header->place - device->window; /* huge, if the place is before the window */

    if (inside > window || header->total > window - inside) {
        return device_error(device, error, VMF_ERROR_PROTOCOL,
                            "buffer %u lies outside the window of %" G_GUINT64_FORMAT " bytes",
                            header->index, window);
    }
    for (unsigned i = 0; i < device->set->window_buffers; i++) {
        const DeviceArrival *a = &device->arrivals[i];

        if (a->used && !a->own && header->place < a->place + a->total &&
            a->place < header->place + header->total) {
            return device_error(device, error, VMF_ERROR_PROTOCOL, "buffer %u lies on buffer %u",
                                header->index, a->index);
        }
    }
    return true;
}

/* --- beginning --- */

static bool own_memory(const Device *device, DeviceArrival *a, GError **error)
{
    a->own = VMF_FAULT("device buffer") ? NULL : g_try_malloc(a->total);
    a->data = a->own;
    return a->own ||
           device_error(device, error, VMF_ERROR_FAILED,
                        "no memory for a buffer of %" G_GUINT64_FORMAT " bytes", a->total);
}

static void start_arrival(Device *device, DeviceArrival *a, const VmfDeviceHeader *header)
{
    *a = (DeviceArrival){.device = device,
                         .index = header->index,
                         .used = true,
                         .config = header->flags & DEVICE_FLAG_CONFIG,
                         .place = header->place,
                         .total = header->total};
}

static DeviceArrival *new_config(Device *device, const VmfDeviceHeader *header, GError **error)
{
    start_arrival(device, &device->config, header);
    return own_memory(device, &device->config, error) ? &device->config : NULL;
}

/* Begins a buffer in memory of its own, which has a bound for all devices together. */
static DeviceArrival *new_alone(Device *device, DeviceArrival *a, const VmfDeviceHeader *header,
                                GError **error)
{
    VmfDevices *devices = device->set;

    if (!devices_may_go_alone_locked(devices, header->total)) {
        device_error(device, error, VMF_ERROR_PROTOCOL,
                     "buffer %u has %" G_GUINT64_FORMAT
                     " bytes outside its window, beside %" G_GUINT64_FORMAT
                     " of all devices; %" G_GUINT64_FORMAT " may be there",
                     header->index, header->total, devices->alone, devices->alone_max);
        return NULL;
    }
    start_arrival(device, a, header);
    if (!own_memory(device, a, error)) {
        a->used = false;
        return NULL;
    }
    devices->alone += a->total;
    return a;
}

static DeviceArrival *new_buffer(Device *device, const VmfDeviceHeader *header, GError **error)
{
    DeviceArrival *a = NULL;
    unsigned used = 0;
    bool alone = header->place == DEVICE_NO_PLACE;

    for (unsigned i = 0; i < device->set->window_buffers; i++) {
        if (device->arrivals[i].used) {
            used++;
            alone = alone || device->arrivals[i].own;
        } else {
            a = &device->arrivals[i];
        }
    }
    if (!a || (alone && used)) {
        device_error(device, error, VMF_ERROR_PROTOCOL,
                     "buffer %u is more than the window takes, beside %u others", header->index,
                     used);
        return NULL;
    }
    if (header->place == DEVICE_NO_PLACE) {
        return new_alone(device, a, header, error);
    }
    if (!check_place(device, header, error)) {
        return NULL;
    }
    start_arrival(device, a, header);
    a->data = device->set->memory + header->place;
    return a;
}

static DeviceArrival *find_or_begin(Device *device, const VmfDeviceHeader *header, GError **error)
{
    const bool config = header->flags & DEVICE_FLAG_CONFIG;
    DeviceArrival *a = config ? (device->config.used ? &device->config : NULL)
                              : device_find_arrival_locked(device, header->index);

    if (a &&
        (a->total != header->total || a->place != header->place || a->index != header->index)) {
        device_error(device, error, VMF_ERROR_PROTOCOL, "two buffers have the index %u",
                     header->index);
        return NULL;
    }
    if (a) {
        return a;
    }
    if (!config && header->index < device->next) {
        device_error(device, error, VMF_ERROR_PROTOCOL, "buffer %u came twice", header->index);
        return NULL;
    }
    if (!config && device->config.used && header->index >= device->config.index) {
        device_error(device, error, VMF_ERROR_PROTOCOL, "buffer %u came, of %u that were announced",
                     header->index, device->config.index);
        return NULL;
    }
    return config ? new_config(device, header, error) : new_buffer(device, header, error);
}

static DeviceArrival *begin_locked(VmfSession *s, const VmfDeviceHeader *header, GError **error)
{
    const uint64_t piece = header->offset / DEVICE_PIECE;
    DeviceArrival *a;
    VmfDevices *devices = devices_expecting_locked(s);
    Device *device = devices ? devices_find(devices, header->idstr, header->instance_id) : NULL;

    if (!device) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "device \"%s\" instance %u is not known here: the source has it, the "
                    "destination has not registered it",
                    header->idstr, header->instance_id);
        return NULL;
    }
    if (!check_piece(device, header, error)) {
        return NULL;
    }
    a = find_or_begin(device, header, error);
    if (a && a->pieces[piece / 8] & 1u << piece % 8) {
        device_error(device, error, VMF_ERROR_PROTOCOL, "a piece of buffer %u came twice",
                     header->index);
        return NULL;
    }
    if (a) {
        a->pieces[piece / 8] |= (uint8_t)(1u << piece % 8);
    }
    return a;
}

void *device_begin(VmfConn *conn, unsigned number, const VmfDeviceHeader *header, GError **error)
{
    VmfSession *s = conn_session(conn);
    DeviceArriving *arriving = &s->devices->arriving[number];
    DeviceArrival *a;

    g_mutex_lock(&s->core.lock);
    a = begin_locked(s, header, error);
    g_mutex_unlock(&s->core.lock);
    arriving->arrival = a;
    arriving->bytes = header->size;
    return a ? a->data + header->offset : NULL;
}

/* --- the end of a piece --- */

static bool config_complete_locked(Device *device, GError **error)
{
    for (unsigned i = 0; i < device->set->window_buffers; i++) {
        const DeviceArrival *a = &device->arrivals[i];

        if (a->used && a->index >= device->config.index) {
            return device_error(device, error, VMF_ERROR_PROTOCOL,
                                "buffer %u came, of %u that were announced", a->index,
                                device->config.index);
        }
    }
    if (device->next > device->config.index) {
        return device_error(device, error, VMF_ERROR_PROTOCOL,
                            "%u buffers were announced, but more came", device->config.index);
    }
    device->config_here = true;
    return true;
}

bool device_done(VmfConn *conn, unsigned number, GError **error)
{
    VmfSession *s = conn_session(conn);
    DeviceArriving *arriving = &s->devices->arriving[number];
    DeviceArrival *a = arriving->arrival;
    bool ok = true;

    arriving->arrival = NULL;
    g_mutex_lock(&s->core.lock);
    a->received += arriving->bytes;
    s->devices->bytes += arriving->bytes;
    if (a->received == a->total) {
        ok = !a->config || config_complete_locked(a->device, error);
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    return ok;
}
