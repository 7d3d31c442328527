/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-devices.c -- devices with large state, in parallel jobs or in the stream */

#include <string.h>

#include "bench.h"

/* The size of a buffer, as drivers give it. */
#define BUFFER_BYTES (1u << 20)
#define PATTERN 0x5a

/* State for all devices of this process. It never changes. */
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

typedef struct BenchDevice {
    BenchDevices *set;
    bool slow;
} BenchDevice;

struct BenchDevices {
    const BenchPlan *plan;
    BenchDevice *list;
    gint64 began; /* atomic; 0: no load job has begun */
    gint64 others_loaded;
};

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    const BenchDevice *device = opaque;

    for (uint64_t left = device->set->plan->device_size; left;) {
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
    BenchDevice *device = opaque;
    BenchDevices *set = device->set;
    gint64 nobody = 0;
    uint64_t bytes = 0;
    const void *data;
    size_t size;

    __atomic_compare_exchange_n(&set->began, &nobody, g_get_monotonic_time(), false,
                                __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    if (device->slow) {
        g_usleep((gulong)set->plan->device_delay_ms * 1000);
    }
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
    if (bytes != set->plan->device_size) {
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
    BenchDevice *device = opaque;

    if (!device->slow) {
        device->set->others_loaded = g_get_monotonic_time();
    }
    if (size == 13 && memcmp(config, "configuration", 13) == 0) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%zu bytes came", size);
    return false;
}

BenchDevices *bench_devices_new(const BenchPlan *plan)
{
    BenchDevices *devices = g_new0(BenchDevices, 1);

    devices->plan = plan;
    devices->list = g_new0(BenchDevice, MAX(plan->devices, 1));
    for (unsigned i = 0; i < plan->devices; i++) {
        devices->list[i] = (BenchDevice){.set = devices, .slow = i < plan->devices_slow};
    }
    return devices;
}

void bench_devices_free(BenchDevices *devices)
{
    if (devices) {
        g_free(devices->list);
        g_free(devices);
    }
}

bool bench_devices_add(BenchDevices *devices, VmfSession *session, GError **error)
{
    static const VmfDeviceOps ops = {.size = sizeof(ops),
                                     .save = save,
                                     .save_config = save_config,
                                     .load = load,
                                     .load_config = load_config};

    for (unsigned i = 0; bench_devices_parallel(devices->plan) && i < devices->plan->devices; i++) {
        if (!vmf_devices_add(vmf_session_get_devices(session), "bench", i, &ops, &devices->list[i],
                             error)) {
            return false;
        }
    }
    return true;
}

uint64_t bench_devices_others_us(const BenchDevices *devices)
{
    return devices->others_loaded ? (uint64_t)(devices->others_loaded - devices->began) : 0;
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
        g_usleep(i < plan->devices_slow ? (gulong)plan->device_delay_ms * 1000 : 0);
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
