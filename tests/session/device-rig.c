/* SPDX-License-Identifier: BSD-2-Clause */
/* device-rig.c -- sessions with devices of every kind, for the tests of device state */

#include "device-rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* Ends the state in the stream that load jobs need. */
#define MARKER 0x53544f50u

void rig_name(RigDevice *devices, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_snprintf(devices[i].idstr, sizeof(devices[i].idstr), "dev%u", i);
    }
}

/* --- state that both sides know --- */

static size_t size_of(const RigDevice *d, unsigned i)
{
    return 1 + (size_t)(i + 1) * 2654435761u % d->size;
}

static uint8_t byte_of(const RigDevice *d, unsigned i)
{
    return (uint8_t)(g_str_hash(d->idstr) + d->instance_id + i * 3 + 1);
}

static uint8_t *make(const RigDevice *d, unsigned i)
{
    size_t size = size_of(d, i);
    uint8_t *bytes = g_malloc(size);

    memset(bytes, byte_of(d, i), size);
    bytes[size / 2] ^= (uint8_t)i;
    return bytes;
}

static bool is_right(const RigDevice *d, unsigned i, const uint8_t *bytes, size_t size)
{
    g_autofree uint8_t *expected = make(d, i);

    return size == size_of(d, i) && memcmp(bytes, expected, size) == 0;
}

static bool fault(const RigDevice *d, RigFault which, GError **error)
{
    if (d->fault != which) {
        return false;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "fault %d of the test", which);
    return true;
}

/* --- jobs --- */

typedef struct Put {
    RigDevice *device;
    uint8_t *bytes;
} Put;

static void release(void *opaque)
{
    Put *put = opaque;

    g_atomic_int_inc(&put->device->released);
    memset(put->bytes, 0, 1); /* a late reader gets a wrong byte */
    g_free(put->bytes);
    g_free(put);
}

static bool put(VmfDeviceJob *job, RigDevice *d, unsigned i, GError **error)
{
    Put *put = g_new0(Put, 1);
    bool ok;

    *put = (Put){.device = d, .bytes = make(d, i)};
    g_atomic_int_inc(&d->put);
    if (!d->waits) {
        return vmf_device_put(job, put->bytes, size_of(d, i), release, put, error);
    }
    ok = vmf_device_put(job, put->bytes, size_of(d, i), NULL, NULL, error);
    release(put);
    return ok;
}

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    RigDevice *d = opaque;

    for (unsigned i = 0; i < d->buffers; i++) {
        if (d->save_delay_us) {
            g_usleep(d->save_delay_us);
        }
        if ((i == d->fault_at && fault(d, FAULT_SAVE, error)) || !put(job, d, i, error)) {
            return false;
        }
    }
    return true;
}

static GBytes *save_config(void *opaque, GError **error)
{
    RigDevice *d = opaque;

    return fault(d, FAULT_SAVE_CONFIG, error) ? NULL : g_bytes_new(d->idstr, strlen(d->idstr));
}

static bool load(VmfDeviceJob *job, void *opaque, GError **error)
{
    RigDevice *d = opaque;
    const void *data;
    size_t size;
    unsigned i = 0;

    if (d->read && !g_atomic_int_get(d->read)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "its load job has begun before the stream's state was loaded");
        return false;
    }
    while (d->fault == FAULT_NEVER_READS && vmf_device_job_check(job, error)) {
        g_usleep(1000);
    }
    do {
        if (d->load_delay_us) {
            g_usleep(d->load_delay_us);
        }
        if (i == d->fault_at && d->fault == FAULT_STOPS_READING) {
            return true;
        }
        if ((i == d->fault_at && fault(d, FAULT_LOAD, error)) ||
            !vmf_device_get(job, &data, &size, error)) {
            return false;
        }
        if (data && !is_right(d, i, data, size)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "buffer %u is not what was put", i);
            return false;
        }
        i++;
    } while (data);
    while (d->after && !g_atomic_int_get(&d->after->loaded_as) &&
           vmf_device_job_check(job, error)) {
        g_usleep(1000);
    }
    if (i != d->buffers + 1) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%u buffers came of %u", i - 1, d->buffers);
        return false;
    }
    return true;
}

static bool load_config(const void *config, size_t size, void *opaque, GError **error)
{
    RigDevice *d = opaque;

    if (d->config_delay_us) {
        g_usleep(d->config_delay_us);
    }
    if (fault(d, FAULT_LOAD_CONFIG, error)) {
        return false;
    }
    if (size != strlen(d->idstr) || memcmp(config, d->idstr, size) != 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "its configuration is another's");
        return false;
    }
    g_atomic_int_set(&d->loaded_as, d->order ? g_atomic_int_add(d->order, 1) + 1 : 1);
    return true;
}

static const VmfDeviceOps ops = {.size = sizeof(ops),
                                 .save = save,
                                 .save_config = save_config,
                                 .load = load,
                                 .load_config = load_config};

static bool add_all(Rig *rig, VmfSession *session, unsigned missing, GError **error)
{
    for (unsigned i = 0; i + missing < rig->count; i++) {
        RigDevice *d = &rig->devices[i];

        if (!vmf_devices_add(vmf_session_get_devices(session), d->idstr, d->instance_id, &ops, d,
                             error)) {
            return false;
        }
    }
    return true;
}

/* --- the two sides --- */

/* Puts state of the VM into the stream while it runs: bytes that count up. */
static void put_iterative(const Rig *rig, VmfFile *file)
{
    for (uint64_t at = 0; at < rig->iterative; at++) {
        vmf_put_byte(file, (uint8_t)at);
    }
    vmf_put_be32(file, MARKER);
}

/* Reads the state, and the marker. */
static bool read_iterative(Rig *rig, VmfFile *file, GError **error)
{
    for (uint64_t at = 0; at < rig->iterative; at++) {
        if (rig->read_delay_us && at % 65536 == 0) {
            g_usleep(rig->read_delay_us);
        }
        if (vmf_get_byte(file) != (uint8_t)at && vmf_file_check(file, error)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "byte %" G_GUINT64_FORMAT, at);
        }
        if (*error) {
            return false;
        }
    }
    g_atomic_int_set(&rig->read, 1);
    return vmf_get_be32(file) == MARKER && vmf_file_check(file, error);
}

static void *destination(void *opaque)
{
    Rig *rig = opaque;
    VmfSession *s = rig->pair->destination;
    VmfDevices *devices = vmf_session_get_devices(s);
    GError **error = &rig->destination_error;
    VmfFile *file = vmf_session_get_file(s);
    bool ok = add_all(rig, s, rig->missing_at_destination, error) &&
              vmf_devices_expect(devices, error) && read_iterative(rig, file, error) &&
              (rig->leaves_begin || vmf_devices_begin(devices, error));

    if (ok) {
        vmf_get_be64(file);
        ok = vmf_devices_load(devices, error) && vmf_session_complete(s, error);
    }
    if (!ok) {
        if (!*error && vmf_session_check(s, error)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "the stream is not what was put");
        }
        vmf_session_fail(
            s, g_error_copy(*error)); /* as a VMM would, because nobody waits for this thread */
    }
    return GINT_TO_POINTER(ok);
}

static bool source(Rig *rig)
{
    VmfSession *s = rig->pair->source;
    VmfDevices *devices = vmf_session_get_devices(s);
    GError **error = &rig->source_error;
    VmfFile *file = vmf_session_get_file(s);
    bool ok = add_all(rig, s, rig->missing_at_source, error);

    if (ok) {
        put_iterative(rig, file);
        ok = vmf_devices_start(devices, error);
    }
    if (ok) {
        for (uint64_t at = 0; at < rig->pair->size; at += 4096) {
            vmf_save_ram_page(file, rig->pair->block, at, MIN(4096, rig->pair->size - at));
        }
        vmf_flush_ram_pages(file, VMF_FLUSH_FINAL);
        vmf_put_be64(file, 1);
        ok = vmf_file_check(file, error) && vmf_devices_finish(devices, error) &&
             vmf_session_complete(s, error);
    }
    if (!ok) {
        vmf_session_fail(s, g_error_copy(*error));
    }
    return ok;
}

static void *cancel(void *opaque)
{
    Rig *rig = opaque;

    g_usleep(rig->cancel_after_us);
    vmf_session_cancel(rig->cancel_destination ? rig->pair->destination : rig->pair->source);
    return NULL;
}

bool rig_migrate(Rig *rig)
{
    GThread *there, *canceller = NULL;
    bool gave, owns;

    pair_connect(rig->pair);
    there = g_thread_new("destination", destination, rig);
    if (rig->cancel_after_us) {
        canceller = g_thread_new("cancel", cancel, rig);
    }
    gave = source(rig);
    owns = g_thread_join(there);
    if (canceller) {
        g_thread_join(canceller);
    }
    pair_disconnect(rig->pair);
    for (unsigned i = 0; i < rig->count; i++) {
        RigDevice *d = &rig->devices[i];

        assert_int_equal(g_atomic_int_get(&d->put), g_atomic_int_get(&d->released));
        assert_true(!owns || g_atomic_int_get(&d->loaded_as));
    }
    assert_true(owns || rig->destination_error);
    assert_true(gave || rig->source_error);
    if (gave) { /* the source gives up the VM only if the destination has it */
        assert_true(owns);
        assert_memory_equal(rig->pair->source_ram, rig->pair->destination_ram, rig->pair->size);
    }
    return gave && owns;
}

void rig_clear_errors(Rig *rig)
{
    g_clear_error(&rig->source_error);
    g_clear_error(&rig->destination_error);
    g_atomic_int_set(&rig->read, 0);
    for (unsigned i = 0; i < rig->count; i++) {
        g_atomic_int_set(&rig->devices[i].put, 0);
        g_atomic_int_set(&rig->devices[i].released, 0);
        g_atomic_int_set(&rig->devices[i].loaded_as, 0);
    }
}
