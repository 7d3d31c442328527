/* SPDX-License-Identifier: BSD-2-Clause */
/* device-load.c -- the destination's devices: load jobs on their threads, and configurations */

#include "device-load.h"

#include <string.h>
#include <sys/mman.h>
#include <vmferry/plugin/bytes.h>

#include "base/fault.h"
#include "device-arrive.h"
#include "session/session-core.h"
#include "session/session-post.h"
#include "session/session-waking.h"

/* --- load jobs --- */

/* Gives back the buffer that the job had. The caller holds the lock. */
static bool give_back_locked(Device *device)
{
    DeviceArrival *a = device->lent;

    device->lent = NULL;
    if (a) {
        device->set->alone -= a->own ? a->total : 0;
        g_clear_pointer(&a->own, g_free);
        a->used = false;
    }
    return a != NULL;
}

static DeviceArrival *next_locked(Device *device)
{
    DeviceArrival *a = device_find_arrival_locked(device, device->next);

    return a && a->received == a->total ? a : NULL;
}

static bool at_end_locked(const Device *device)
{
    return device->config_here && device->next == device->config.index;
}

bool vmf_device_get(VmfDeviceJob *job, const void **data, size_t *size, GError **error)
{
    Device *device = job->device;
    VmfSession *s = device->set->session;
    DeviceArrival *a = NULL;
    bool credit, failed;

    g_mutex_lock(&s->core.lock);
    credit = give_back_locked(device);
    g_mutex_unlock(&s->core.lock);
    if (credit) {
        session_post(s, MESSAGE_DEVICE_CREDIT, 0, (uint64_t)device->number << 32 | device->next,
                     NULL, 0);
    }
    g_mutex_lock(&s->core.lock);
    while (!s->core.error && !(a = next_locked(device)) && !at_end_locked(device)) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    failed = s->core.error != NULL;
    device->ended = !a && !failed;
    if (a && !failed) {
        device->lent = a;
        device->next++;
    }
    g_mutex_unlock(&s->core.lock);
    *data = a && !failed ? a->data : NULL;
    *size = a && !failed ? a->total : 0;
    return !failed || session_report(s, error);
}

/* Runs the job, which must take everything. A device without a job must have no buffers. */
static bool load(Device *device, GError **error)
{
    const void *data;
    size_t size;

    if (!device->ops.load) {
        return vmf_device_get(&device->job, &data, &size, error) &&
               (!data || device_error(device, error, VMF_ERROR_MISMATCH,
                                      "the source has sent buffers, and it has no load job here"));
    }
    if (!device->ops.load(&device->job, device->opaque, error)) {
        return false;
    }
    return device->ended || device_error(device, error, VMF_ERROR_FAILED,
                                         "its load job ended before it was told that there are no "
                                         "more buffers, after %u of them",
                                         device->next);
}

static void *load_main(void *opaque)
{
    Device *device = opaque;
    VmfSession *s = device->set->session;
    GError *error = NULL;

    if (!load(device, &error)) {
        device_fail(device, "it cannot be loaded", error);
        return NULL;
    }
    g_mutex_lock(&s->core.lock);
    device->stage = DEVICE_READY;
    g_queue_push_tail(&device->set->ready, device);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return NULL;
}

/* --- SWITCHOVER_START --- */

/* The caller holds the lock. */
static bool announce_locked(VmfDevices *devices, const MessageDevice *entry, GError **error)
{
    Device *device = devices ? devices_find(devices, entry->idstr, entry->instance_id) : NULL;

    if (!device || device->stage != DEVICE_NEW) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    device ? "device \"%s\" instance %u: the source has it twice"
                           : "device \"%s\" instance %u: the source has it, this side has not "
                             "registered it",
                    entry->idstr, entry->instance_id);
        return false;
    }
    device->stage = DEVICE_ANNOUNCED;
    device->number = devices->announced++;
    return true;
}

static bool start_jobs(VmfDevices *devices, GError **error)
{
    for (guint i = 0; i < devices->list->len; i++) {
        Device *device = devices->list->pdata[i];
        g_autoptr(GError) failure = NULL;

        device->thread = g_thread_try_new("vmf-load", load_main, device, &failure);
        if (!device->thread) {
            return device_error(device, error, VMF_ERROR_FAILED, "cannot start its thread: %s",
                                failure->message);
        }
    }
    return true;
}

/*
 * A job may need what the stream has brought for its device, and SWITCHOVER_START overtakes the
 * stream. So jobs start when the list is complete, and the reader says that it has loaded all
 * before it. The later of the two starts the jobs.
 */
static bool start_jobs_if_due(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    bool due;

    g_mutex_lock(&s->core.lock);
    due = devices->switchover && devices->begun && !devices->jobs_started;
    devices->jobs_started |= due;
    g_mutex_unlock(&s->core.lock);
    if (!due) {
        return true;
    }
    if (devices->read < devices->put) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                    "the destination began to load devices after byte %" G_GUINT64_FORMAT
                    " of the stream, the source started them after byte %" G_GUINT64_FORMAT
                    ": call vmf_devices_begin() after all that is put before "
                    "vmf_devices_start()",
                    devices->read, devices->put);
        return false;
    }
    return start_jobs(devices, error);
}

/* The source has named all its devices. */
static bool switch_over(VmfDevices *devices, uint64_t put, GError **error)
{
    VmfSession *s = devices->session;
    Device *missing;

    g_mutex_lock(&s->core.lock);
    missing = devices_first_before_locked(devices, DEVICE_ANNOUNCED);
    devices->switchover = !missing;
    devices->put = put;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    if (missing) {
        return device_error(missing, error, VMF_ERROR_MISMATCH,
                            "this side has it, the source has not");
    }
    return start_jobs_if_due(devices, error);
}

bool devices_handle_switchover(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                               GError **error)
{
    VmfReader r = vmf_reader(
        payload, MESSAGE_SWITCHOVER_BYTES); /* the table of messages makes sure of them */
    const uint64_t put = vmf_read_be64(&r);
    size_t left = header->length - MESSAGE_SWITCHOVER_BYTES;
    VmfDevices *devices;

    payload += MESSAGE_SWITCHOVER_BYTES;

    g_mutex_lock(&s->core.lock);
    devices = devices_expecting_locked(s);
    g_mutex_unlock(&s->core.lock);
    if (devices && (devices->switchover || header->argument != devices->announced)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "SWITCHOVER_START: a second one, or its parts are out of order");
        return false;
    }
    while (left) {
        MessageDevice entry;
        size_t taken = message_device_decode(payload, left, &entry, error);
        bool ok;

        g_mutex_lock(&s->core.lock);
        ok = taken && announce_locked(devices, &entry, error);
        g_mutex_unlock(&s->core.lock);
        if (!ok) {
            return false;
        }
        payload += taken;
        left -= taken;
    }
    return !devices || header->flags & MESSAGE_MORE || switch_over(devices, put, error);
}

/* --- the reader's place in the stream --- */

static bool check_expecting(const VmfDevices *devices, GError **error)
{
    if (devices->session->role != VMF_ROLE_DESTINATION || !devices->started) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "devices are loaded by the destination, after vmf_devices_expect()");
        return false;
    }
    return true;
}

static bool begin(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    GError *failure = NULL;

    g_mutex_lock(&s->core.lock);
    devices->begun = true;
    devices->read = s->streams.in_ring.tail - vmf_file_buffered(s->file);
    g_mutex_unlock(&s->core.lock);
    if (!start_jobs_if_due(devices, &failure)) {
        session_fail(s, failure, false);
    }
    return vmf_session_check(s, error);
}

bool vmf_devices_begin(VmfDevices *devices, GError **error)
{
    if (!check_expecting(devices, error)) {
        return false;
    }
    if (devices->begun) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "the devices' load jobs have been allowed to begin already");
        return false;
    }
    return begin(devices, error);
}

/* --- memory --- */

/* Allocates what is noted about buffers that arrive. */
static bool allocate_arrivals(VmfDevices *devices, GError **error)
{
    for (guint i = 0; i < devices->list->len; i++) {
        Device *device = devices->list->pdata[i];

        device->arrivals = VMF_FAULT("device arrivals")
                               ? NULL
                               : g_try_new0(DeviceArrival, devices->window_buffers);
        if (!device->arrivals) {
            return device_error(device, error, VMF_ERROR_FAILED,
                                "no memory for a list of %u buffers (the options devices-buffers= "
                                "and device-buffers= say how many)",
                                devices->window_buffers);
        }
    }
    return true;
}

static bool map_windows(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    uint8_t *memory;

    devices->memory_bytes = (size_t)devices_lay_out(devices, devices->window_bytes);
    if (!devices->memory_bytes) {
        return true;
    }
    memory = VMF_FAULT("mmap device windows")
                 ? MAP_FAILED
                 : mmap(NULL, devices->memory_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "no memory for device windows of %zu bytes (the options devices-queue= and "
                    "device-queue= say how much)",
                    devices->memory_bytes);
        return false;
    }
    devices->memory = memory;
    return !VMF_TRANSPORT_HAS(s->ops, device_memory) ||
           s->ops->device_memory(s->conn, memory, devices->memory_bytes, error);
}

bool vmf_devices_expect(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;
    const guint count = MAX(devices->list->len, 1);
    uint8_t payload[12];
    VmfWriter w = vmf_writer(payload, sizeof(payload));

    if (s->role != VMF_ROLE_DESTINATION || devices->expected) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "devices are expected once, and by the destination");
        return false;
    }
    devices->expected = true;
    /* Every device gets an equal part of the bounds for all, so that none uses up another's. */
    devices->window_bytes =
        MIN(s->options.device.bytes, MAX(s->options.device.all_bytes / count, 1));
    devices->window_buffers =
        MIN(s->options.device.buffers, MAX(s->options.device.all_buffers / count, 1));
    devices->alone_max = s->options.device.all_bytes;
    if (!allocate_arrivals(devices, error) || !map_windows(devices, error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    devices->started = true;
    g_mutex_unlock(&s->core.lock);
    vmf_write_be32(&w, devices->window_buffers);
    vmf_write_be64(&w, devices->alone_max);
    session_post(s, MESSAGE_DEVICE_WINDOW, 0, devices->window_bytes, payload, sizeof(payload));
    return vmf_session_check(s, error);
}

/* --- configurations --- */

/* Whether all that the source ever sends is here. The caller holds the lock. */
static bool all_here_locked(const VmfSession *s)
{
    return s->streams.in_ended && session_seen_locked(s) >= s->streams.final_sync;
}

/* Sets *error to what a device lacks if nothing more can come. The caller holds the lock. */
static bool lacks_locked(Device *device, GError **error)
{
    if (device->stage == DEVICE_NEW || !device->config_here) {
        device_error(device, error, VMF_ERROR_PROTOCOL, "the source has completed without %s",
                     device->stage != DEVICE_NEW ? "having saved it" : "a switchover");
        return true;
    }
    for (uint32_t index = device->next; index < device->config.index; index++) {
        DeviceArrival *a = device_find_arrival_locked(device, index);

        if (!a || a->received != a->total) {
            device_error(device, error, VMF_ERROR_PROTOCOL,
                         "buffer %u of %u is missing, and everything has come", index,
                         device->config.index);
            return true;
        }
    }
    return false;
}

static GError *find_lack_locked(VmfDevices *devices)
{
    GError *error = NULL;

    for (guint i = 0; i < devices->list->len && !error; i++) {
        lacks_locked(devices->list->pdata[i], &error);
    }
    return error;
}

/* A number that changes when something arrives, or a job takes something. */
static uint64_t progress_locked(const VmfDevices *devices)
{
    uint64_t progress = devices->bytes + devices->jobs_started;

    for (guint i = 0; i < devices->list->len; i++) {
        const Device *device = devices->list->pdata[i];

        progress += device->next + (device->lent != NULL);
    }
    return progress;
}

/* Waits for a change. *late is set if nothing moves for too long. The caller holds the lock. */
static void await_progress_locked(VmfDevices *devices, uint64_t *progress, gint64 *deadline,
                                  GError **late)
{
    VmfSession *s = devices->session;
    Device *unready;

    if (*progress != progress_locked(devices)) {
        *progress = progress_locked(devices);
        *deadline = g_get_monotonic_time() + s->options.device.timeout_us;
    }
    if (!devices->jobs_started) { /* the VM may run for any time */
        g_cond_wait(&s->core.changed, &s->core.lock);
    } else if (!g_cond_wait_until(&s->core.changed, &s->core.lock, *deadline) &&
               (unready = devices_first_before_locked(devices, DEVICE_READY))) {
        device_error(unready, late, VMF_ERROR_TIMEOUT,
                     "not loaded, and no device has taken or got anything for %.1f s (the time-out "
                     "is the option device-timeout=)",
                     (double)s->options.device.timeout_us / 1e6);
    }
}

/*
 * Waits for the next device that is ready. NULL: all are loaded, the session failed, or *lack is
 * set.
 */
static Device *await_ready(VmfDevices *devices, GError **lack)
{
    VmfSession *s = devices->session;
    Device *device = NULL;
    uint64_t progress = UINT64_MAX;
    gint64 deadline = 0;

    g_mutex_lock(&s->core.lock);
    while (!s->core.error && !*lack && devices_first_before_locked(devices, DEVICE_DONE) &&
           !(device = g_queue_pop_head(&devices->ready))) {
        if (all_here_locked(s)) {
            *lack = find_lack_locked(devices);
        }
        if (!*lack) {
            await_progress_locked(devices, &progress, &deadline, lack);
        }
    }
    g_mutex_unlock(&s->core.lock);
    return device;
}

static bool load_config(Device *device, GError **error)
{
    VmfSession *s = device->set->session;
    GError *failure = NULL;
    bool ok = !device->ops.load_config ||
              device->ops.load_config(device->config.data + 1, device->config.total - 1,
                                      device->opaque, &failure);

    if (!ok) {
        device_fail(device, "its configuration cannot be loaded", failure);
        return session_report(s, error);
    }
    g_clear_pointer(&device->config.own, g_free);
    g_mutex_lock(&s->core.lock);
    device->stage = DEVICE_DONE;
    g_mutex_unlock(&s->core.lock);
    return true;
}

bool vmf_devices_load(VmfDevices *devices, GError **error)
{
    VmfSession *s = devices->session;

    if (!check_expecting(devices, error) || (!devices->begun && !begin(devices, error))) {
        return false;
    }
    for (;;) {
        GError *lack = NULL;
        Device *device = await_ready(devices, &lack);

        if (lack) {
            session_fail(s, lack, false);
        }
        if (!device) {
            return vmf_session_check(s, error);
        }
        if (!load_config(device, error)) {
            return false;
        }
    }
}
