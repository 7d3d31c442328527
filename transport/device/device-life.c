/* SPDX-License-Identifier: BSD-2-Clause */
/* device-life.c -- making and freeing the devices of a session, and adding one */

#include "device-life.h"

#include <string.h>
#include <sys/mman.h>

#include "device-arrive.h"
#include "device-load.h"
#include "device-save.h"

static void device_free(void *data)
{
    Device *device = data;

    if (device->thread) {
        g_thread_join(device->thread);
    }
    device_release(device, true);
    for (unsigned i = 0; device->arrivals && i < device->set->window_buffers; i++) {
        g_free(device->arrivals[i].own);
    }
    g_free(device->arrivals);
    g_free(device->config.own);
    device_ring_clear(&device->ring);
    g_free(device->idstr);
    g_free(device);
}

VmfDevices *devices_new(VmfSession *session)
{
    VmfDevices *devices = g_new0(VmfDevices, 1);

    devices->session = session;
    devices->list = g_ptr_array_new_with_free_func(device_free);
    devices->by_name = g_hash_table_new(device_hash, device_equal);
    return devices;
}

VmfDevices *vmf_session_get_devices(VmfSession *s)
{
    return s->devices;
}

void devices_free(VmfDevices *devices)
{
    if (!devices) {
        return;
    }
    for (unsigned i = 0; i < devices->worker_count; i++) {
        g_thread_join(devices->workers[i]);
    }
    g_free(devices->workers);
    g_hash_table_unref(devices->by_name);
    g_ptr_array_unref(devices->list);
    if (devices->memory) {
        munmap(devices->memory, devices->memory_bytes);
    }
    g_queue_clear(&devices->ready);
    g_free(devices);
}

/* The shortest table has one job. A member past the table's size counts as NULL. */
#define OPS_SHORTEST offsetof(VmfDeviceOps, save_config)

bool vmf_devices_add(VmfDevices *devices, const char *idstr, uint32_t instance_id,
                     const VmfDeviceOps *ops, void *opaque, GError **error)
{
    Device *device;

    if (!*idstr || strlen(idstr) > 255 || ops->size < OPS_SHORTEST) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "device \"%s\": its name must have 1 to 255 bytes, and ops->size, which is "
                    "%zu, must be sizeof(VmfDeviceOps)",
                    idstr, ops->size);
        return false;
    }
    if (devices->started || devices_find(devices, idstr, instance_id)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "device \"%s\" instance %u: %s", idstr,
                    instance_id, devices->started ? "too late to add it" : "is there already");
        return false;
    }
    if (devices->list->len == DEVICES_MAX) {
        g_set_error(
            error, VMF_ERROR, VMF_ERROR_INVALID,
            "device \"%s\" instance %u: there are %u devices already, as many as there can be",
            idstr, instance_id, DEVICES_MAX);
        return false;
    }
    device = g_new0(Device, 1);
    device->set = devices;
    device->idstr = g_strdup(idstr);
    device->instance_id = instance_id;
    memcpy(&device->ops, ops, MIN(ops->size, sizeof(*ops)));
    device->opaque = opaque;
    device->job.device = device;
    g_queue_init(&device->outgoing);
    g_ptr_array_add(devices->list, device);
    g_hash_table_add(devices->by_name, device);
    return true;
}

/* --- what the session calls --- */

static bool message(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                    GError **error)
{
    switch (header->type) {
    case MESSAGE_DEVICE_WINDOW:
        return devices_handle_window(s, header, payload, error);
    case MESSAGE_SWITCHOVER_START:
        return devices_handle_switchover(s, header, payload, error);
    default:
        return devices_handle_credit(s, header, error);
    }
}

static bool is_sending_locked(const VmfDevices *devices)
{
    return devices->started && devices_first_before_locked(devices, DEVICE_DONE);
}

const SessionDeviceOps device_ops = {
    .message = message,
    .begin = device_begin,
    .done = device_done,
    .is_sending_locked = is_sending_locked,
};
