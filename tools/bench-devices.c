/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-devices.c -- devices with large state, by parallel jobs or one after the other in the
 * stream */

#include <string.h>

#include "bench.h"

/* A buffer of a device, as drivers give it. */
#define BUFFER_BYTES (1u << 20)
#define PATTERN 0x5a

/* Shared by all devices of this process; never changed. */
static const uint8_t *some_state(void)
{
    static gsize made;
    static uint8_t *state;

    if (g_once_init_enter(&made)) {
        state = g_malloc(BUFFER_BYTES);
        memset(state, PATTERN, BUFFER_BYTES);
        g_once_init_leave(&made, 1);
    }
    return state;
}

static void keep(void *data)
{
    (void)data; /* the state is not freed */
}

/* --- jobs --- */

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    const BenchPlan *plan = opaque;

    for (uint64_t left = plan->device_size; left;) {
        size_t part = MIN(left, BUFFER_BYTES);

        if (!vmf_device_put(job, some_state(), part, keep, NULL, error)) {
            return false;
        }
        left -= part;
    }
    return true;
}

static bool load(VmfDeviceJob *job, void *opaque, GError **error)
{
    const BenchPlan *plan = opaque;
    uint64_t bytes = 0;
    const void *data;
    size_t size;

    g_usleep((gulong)plan->device_delay_ms * 1000);
    do {
        if (!vmf_device_get(job, &data, &size, error)) {
            return false;
        }
        if (data && memcmp(data, some_state(), size) != 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "its state is damaged");
            return false;
        }
        bytes += size;
    } while (data);
    if (bytes != plan->device_size) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%" G_GUINT64_FORMAT " bytes came", bytes);
        return false;
    }
    return true;
}

static GBytes *save_config(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return g_bytes_new_static("configuration", 13);
}

static bool load_config(const void *config, size_t size, void *opaque, GError **error)
{
    (void)opaque;
    if (size == 13 && memcmp(config, "configuration", 13) == 0) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%zu bytes came", size);
    return false;
}

bool bench_devices_add(VmfSession *session, const BenchPlan *plan, GError **error)
{
    static const VmfDeviceOps ops = {.size = sizeof(ops),
                                     .save = save,
                                     .save_config = save_config,
                                     .load = load,
                                     .load_config = load_config};
    VmfDevices *devices;

    if (!bench_devices_parallel(plan)) {
        return true;
    }
    devices = vmf_session_get_devices(session);
    for (unsigned i = 0; i < plan->devices; i++) {
        if (!vmf_devices_add(devices, "bench", i, &ops, (void *)plan, error)) {
            return false;
        }
    }
    return true;
}

/* --- in the stream --- */

void bench_devices_put(VmfFile *file, const BenchPlan *plan)
{
    for (unsigned i = 0; i < plan->devices; i++) {
        for (uint64_t left = plan->device_size; left;) {
            size_t part = MIN(left, BUFFER_BYTES);

            vmf_put_buffer(file, some_state(), part);
            left -= part;
        }
    }
}

bool bench_devices_take(VmfFile *file, const BenchPlan *plan)
{
    g_autofree uint8_t *buffer = g_malloc(BUFFER_BYTES);

    for (unsigned i = 0; i < plan->devices; i++) {
        g_usleep((gulong)plan->device_delay_ms * 1000);
        for (uint64_t left = plan->device_size; left;) {
            size_t part = MIN(left, BUFFER_BYTES);

            if (vmf_get_buffer(file, buffer, part) != part ||
                memcmp(buffer, some_state(), part) != 0) {
                return false;
            }
            left -= part;
        }
    }
    return true;
}
