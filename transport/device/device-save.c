/* SPDX-License-Identifier: BSD-2-Clause */
/* device-save.c -- the source's devices: save jobs on worker threads, and buffers under way */

#include "device-save.h"

#include <string.h>
#include <vmferry/plugin/bytes.h>

#include "base/fault.h"
#include "session/session-client.h"
#include "session/session-core.h"
#include "session/session-post.h"
#include "session/session-ram.h"

/* --- buffers that were put --- */

void device_release(Device *device, bool wait)
{
    VmfSession *s = device->set->session;
    DeviceOutgoing *out;

    while ((out = g_queue_peek_head(&device->outgoing)) &&
           (wait || session_is_done(s, &out->done))) {
        session_await_done(s, &out->done, NULL);
        g_queue_pop_head(&device->outgoing);
        if (out->release) {
            out->release(out->release_data);
        }
        g_free(out);
    }
}

/* Takes a place in the window, or outside it if `alone'. Returns false if there is none now. */
static bool try_to_take_locked(Device *device, uint64_t size, bool alone, uint64_t *place)
{
    if ((alone && !devices_may_go_alone_locked(device->set, size)) ||
        !device_ring_take(&device->ring, size, place)) {
        return false;
    }
    device->alone = alone ? size : 0;
    device->set->alone += device->alone;
    return true;
}

/* The destination has given back the oldest buffer. A buffer outside the window is the only one. */
static void give_back_locked(Device *device)
{
    device_ring_give(&device->ring);
    device->given_back++;
    if (device->alone) {
        device->set->alone -= device->alone;
        device->set->alone_given_back++;
        device->alone = 0;
    }
}

/* A number that changes when a buffer is given back that this one may wait for. */
static uint64_t given_back_locked(const Device *device, bool alone)
{
    return device->given_back + (alone ? device->set->alone_given_back : 0);
}

static bool took_nothing(const Device *device, bool alone, GError **error)
{
    return device_error(device, error, VMF_ERROR_TIMEOUT,
                        "its load job at the destination has taken nothing for %.1f s, or was not "
                        "begun%s (the time-out is the option device-timeout=)",
                        (double)device->set->session->options.device.timeout_us / 1e6,
                        alone ? "; or those of other devices hold all the memory for buffers that "
                                "are larger than their windows"
                              : "");
}

/* Waits for a place at the destination. */
static bool take_place(Device *device, DeviceOutgoing *out, GError **error)
{
    VmfSession *s = device->set->session;
    const uint64_t size = out->header.total;
    const bool alone = device_ring_is_smaller(&device->ring, size);
    gint64 deadline = 0;
    uint64_t given_back = 0;
    bool taken, late = false;

    g_mutex_lock(&s->core.lock);
    while (!(taken = try_to_take_locked(device, size, alone, &out->header.place)) &&
           !s->core.error && !late) {
        if (!deadline || given_back != given_back_locked(device, alone)) {
            given_back = given_back_locked(device, alone);
            deadline = g_get_monotonic_time() + s->options.device.timeout_us;
        }
        late = !g_cond_wait_until(&s->core.changed, &s->core.lock, deadline);
    }
    g_mutex_unlock(&s->core.lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    if (out->header.place != DEVICE_NO_PLACE) {
        out->header.place += device->window;
    }
    return taken || took_nothing(device, alone, error);
}

/* Sends the buffer in pieces, each over the first channel that has room. */
static bool send_pieces(Device *device, DeviceOutgoing *out, const void *data, GError **error)
{
    VmfSession *s = device->set->session;
    Payload *payload = session_get_payload(s);
    uint64_t offset = 0;
    bool ok = true;

    while (ok && offset < out->header.total) {
        payload->kind = PAYLOAD_DEVICE;
        payload->device.header = &out->header;
        payload->device.data = data;
        payload->device.offset = offset;
        payload->device.size = MIN(out->header.total - offset, DEVICE_PIECE);
        payload->device.done = &out->done;
        offset += payload->device.size;
        ok = session_submit_anywhere(s, &payload, &out->done);
    }
    /* In either case `payload' is an empty one now. */
    session_return_payload(s, payload);
    if (!ok) {
        return session_report(s, error);
    }
    __atomic_fetch_add(&s->devices->bytes, out->header.total, __ATOMIC_RELAXED);
    return true;
}

static DeviceOutgoing *outgoing_new(Device *device, uint64_t size)
{
    DeviceOutgoing *out = g_new0(DeviceOutgoing, 1);

    g_strlcpy(out->header.idstr, device->idstr, sizeof(out->header.idstr));
    out->header.instance_id = device->instance_id;
    out->header.index = device->put;
    out->header.total = size;
    g_queue_push_tail(&device->outgoing, out);
    return out;
}

bool vmf_device_put(VmfDeviceJob *job, const void *data, size_t size, GDestroyNotify release,
                    void *release_data, GError **error)
{
    Device *device = job->device;
    DeviceOutgoing *out;
    bool ok;

    device_release(device, false); /* before outgoing_new(), whose buffer would look done */
    out = outgoing_new(device, size);
    out->release = release;
    out->release_data = release_data;
    if (size == 0 || size > DEVICE_BUFFER_MAX) {
        return device_error(device, error, VMF_ERROR_INVALID,
                            "buffer %u has %zu bytes; 1 byte to 1 GiB is allowed", device->put,
                            size);
    }
    if (device->put == UINT32_MAX) { /* the number of buffers must be a number, too */
        return device_error(device, error, VMF_ERROR_INVALID,
                            "it has put %u buffers, which is as many as can be counted",
                            device->put);
    }
    ok = take_place(device, out, error) && send_pieces(device, out, data, error);
    device->put += ok;
    if (release) {
        return ok;
    }
    /* Also after a failure, because some pieces may be under way. */
    return session_await_done(device->set->session, &out->done, ok ? error : NULL) && ok;
}

/* --- jobs --- */

/* Sends a byte, so that there is always one, and then what the device gave. */
static bool send_config(Device *device, GBytes *config, GError **error)
{
    gsize size = 0;
    const void *data = config ? g_bytes_get_data(config, &size) : NULL;
    g_autofree uint8_t *bytes = NULL;
    DeviceOutgoing *out;
    bool ok;

    if (size > DEVICE_CONFIG_MAX) {
        return device_error(device, error, VMF_ERROR_INVALID,
                            "its configuration has %zu bytes; 1 MiB is allowed", size);
    }
    bytes = VMF_FAULT("device configuration") ? NULL : g_try_malloc0(1 + size);
    if (!bytes) {
        return device_error(device, error, VMF_ERROR_FAILED,
                            "no memory to send its configuration of %zu bytes", size);
    }
    if (size) {
        memcpy(bytes + 1, data, size);
    }
    out = outgoing_new(device, 1 + size);
    out->header.flags = DEVICE_FLAG_CONFIG;
    out->header.place = DEVICE_NO_PLACE;
    ok = send_pieces(device, out, bytes, error);
    device_release(device, true); /* before `bytes' is freed */
    return ok && vmf_session_check(device->set->session, error);
}

static bool save(Device *device, GError **error)
{
    g_autoptr(GBytes) config = NULL;
    GError *failure = NULL;
    bool ok = !device->ops.save || device->ops.save(&device->job, device->opaque, error);

    device_release(device, true);
    if (!ok) {
        return false;
    }
    if (device->ops.save_config) {
        config = device->ops.save_config(device->opaque, &failure);
    }
    if (failure) {
        g_propagate_error(error, failure);
        return false;
    }
    return send_config(device, config, error);
}

static void save_device(Device *device)
{
    VmfSession *s = device->set->session;
    GError *error = NULL;

    if (session_failed(s)) {
        return;
    }
    if (!save(device, &error)) {
        device_fail(device, "it cannot be saved", error);
        return;
    }
    g_mutex_lock(&s->core.lock);
    device->stage = DEVICE_DONE;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
}

static void *worker_main(void *opaque)
{
    VmfDevices *devices = opaque;
    unsigned turn;

    while ((turn = __atomic_fetch_add(&devices->turn, 1, __ATOMIC_RELAXED)) < devices->list->len) {
        save_device(devices->list->pdata[turn]);
    }
    return NULL;
}

/* --- the set --- */

static bool await_window(VmfSession *s, GError **error)
{
    gint64 deadline = g_get_monotonic_time() + s->options.device.timeout_us;
    bool known;

    g_mutex_lock(&s->core.lock);
    while (!s->core.error && !s->devices->window_buffers &&
           g_cond_wait_until(&s->core.changed, &s->core.lock, deadline)) {
    }
    known = s->devices->window_buffers != 0;
    g_mutex_unlock(&s->core.lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    if (!known) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "the destination did not say within %.1f s that it expects devices",
                    (double)s->options.device.timeout_us / 1e6);
    }
    return known;
}

/*
 * Begins a list with the number of stream bytes so far: load jobs begin after the destination's
 * reader has taken them.
 */
static void begin_list(VmfSession *s, GByteArray *list)
{
    uint8_t bytes[MESSAGE_SWITCHOVER_BYTES];
    VmfWriter w = vmf_writer(bytes, sizeof(bytes));

    g_mutex_lock(&s->core.lock);
    vmf_write_be64(&w, s->streams.out_ring.head);
    g_mutex_unlock(&s->core.lock);
    g_byte_array_set_size(list, 0);
    g_byte_array_append(list, bytes, sizeof(bytes));
}

static void announce(VmfDevices *devices)
{
    VmfSession *s = devices->session;
    g_autoptr(GByteArray) list = g_byte_array_new();
    const size_t room = s->conn->control_max - MESSAGE_HEADER_BYTES;
    guint first = 0;

    begin_list(s, list);
    for (guint i = 0; i < devices->list->len; i++) {
        const Device *device = devices->list->pdata[i];
        MessageDevice entry = {.instance_id = device->instance_id};
        uint8_t bytes[MESSAGE_DEVICE_MAX];

        g_strlcpy(entry.idstr, device->idstr, sizeof(entry.idstr));
        if (list->len + MESSAGE_DEVICE_MAX > room) {
            session_post(s, MESSAGE_SWITCHOVER_START, MESSAGE_MORE, first, list->data, list->len);
            begin_list(s, list);
            first = i;
        }
        g_byte_array_append(list, bytes, (guint)message_device_encode(&entry, bytes));
    }
    session_post(s, MESSAGE_SWITCHOVER_START, 0, first, list->data, list->len);
}

static bool check_start(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;

    if (s->role != VMF_ROLE_SOURCE || devices->started) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "devices are started once, and by the source");
        return false;
    }
    if (session_failed(s)) {
        return session_report(s, error);
    }
    return true;
}

/* The window's sizes are final. From `started' on the control thread looks at the rings. */
static bool make_rings(VmfDevices *devices, GError **error)
{
    for (guint i = 0; i < devices->list->len; i++) {
        Device *device = devices->list->pdata[i];

        device_ring_clear(&device->ring); /* left from a start that failed */
        if (!device_ring_init(&device->ring, devices->window_bytes, devices->window_buffers)) {
            return device_error(device, error, VMF_ERROR_FAILED,
                                "no memory for a window of %u buffers", devices->window_buffers);
        }
    }
    return true;
}

/*
 * A device that is saved slowly must not make others wait, so each has a worker unless the user
 * wants fewer. If the host gives fewer threads, saving only takes longer.
 */
static bool start_workers(VmfDevices *devices, GError **error)
{
    const unsigned most = devices->session->options.device.workers;
    const unsigned wanted = most ? MIN(most, devices->list->len) : devices->list->len;

    devices->workers = g_new0(GThread *, wanted); /* as many as the VMM has devices */
    while (devices->worker_count < wanted) {
        g_autoptr(GError) failure = NULL;
        GThread *thread = VMF_FAULT("thread vmf-save")
                              ? NULL
                              : g_thread_try_new("vmf-save", worker_main, devices, &failure);

        if (!thread && devices->worker_count) {
            g_debug("%u threads save %u devices", devices->worker_count, devices->list->len);
            break;
        }
        if (!thread) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                        "cannot start a thread to save devices: %s",
                        failure ? failure->message : "no more threads");
            return false;
        }
        devices->workers[devices->worker_count++] = thread;
    }
    return true;
}

bool vmf_devices_start(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    GError *failure = NULL;

    if (!check_start(devices, error) || !vmf_file_flush(s->file, error) ||
        !await_window(s, error)) {
        return false;
    }
    if (!make_rings(devices, error)) {
        return false;
    }
    devices_lay_out(devices, devices->window_bytes);
    g_mutex_lock(&s->core.lock);
    devices->started = true;
    g_mutex_unlock(&s->core.lock);
    session_update_channels_done(s);
    announce(devices);
    if (!start_workers(devices, &failure)) { /* the destination waits for the devices by now */
        session_fail(s, failure, false);
    }
    return vmf_session_check(s, error);
}

bool vmf_devices_finish(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;

    if (s->role != VMF_ROLE_SOURCE || !devices->started) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "the devices were not started");
        return false;
    }
    if (!vmf_file_flush(
            s->file, error)) { /* the reader may need these bytes to come to vmf_devices_begin() */
        return false;
    }
    g_mutex_lock(&s->core.lock);
    while (!s->core.error && devices_first_before_locked(devices, DEVICE_DONE)) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    g_mutex_unlock(&s->core.lock);
    session_update_channels_done(s);
    return vmf_session_check(s, error);
}

/* --- what the destination says --- */

bool devices_handle_window(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                           GError **error)
{
    VmfReader r = vmf_reader(payload, header->length);
    const uint32_t buffers = vmf_read_be32(&r);
    const uint64_t alone = vmf_read_be64(&r);
    VmfDevices *devices = s->devices;
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = s->role == VMF_ROLE_SOURCE && !r.bad && !devices->window_buffers && buffers &&
         buffers <= DEVICE_WINDOW_BUFFERS_MAX && header->argument <= DEVICE_WINDOW_BYTES_MAX;
    if (ok) {
        devices->window_bytes = header->argument;
        devices->window_buffers = buffers;
        devices->alone_max = alone;
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    if (!ok) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "DEVICE_WINDOW: a second one, or one of %" G_GUINT64_FORMAT
                    " bytes for %u buffers; up to %llu for 1 to %u are allowed",
                    header->argument, buffers, DEVICE_WINDOW_BYTES_MAX, DEVICE_WINDOW_BUFFERS_MAX);
    }
    return ok;
}

bool devices_handle_credit(VmfSession *s, const MessageHeader *header, GError **error)
{
    const uint32_t number = (uint32_t)(header->argument >> 32);
    const uint32_t given_back = (uint32_t)header->argument;
    Device *device = NULL;
    bool ok = false;

    g_mutex_lock(&s->core.lock);
    if (s->devices->started && number < s->devices->list->len) {
        device = s->devices->list->pdata[number];
        ok = given_back - device->given_back <= device->ring.count;
        while (ok && device->given_back != given_back) {
            give_back_locked(device);
        }
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    if (!ok) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "DEVICE_CREDIT: device number %u, buffers up to %u: there is no such device, "
                    "or so many are not on their way",
                    number, given_back);
    }
    return ok;
}
