/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-listen.c -- the destination of benchmark runs */

#include <string.h>

#include "bench.h"

#define PLAN_MAX 4096

/* Accepts a session without RAM that brings the next run's plan. */
static bool receive_plan(VmfListener *listener, BenchPlan *plan, GError **error)
{
    g_autoptr(VmfRamBlocks) none = vmf_ram_blocks_new();
    g_autoptr(VmfSession) session = vmf_session_accept(listener, none, NULL, error);
    char text[PLAN_MAX];
    VmfFile *file;
    uint32_t size;

    if (!session) {
        return false;
    }
    file = vmf_session_get_file(session);
    size = vmf_get_be32(file);
    if (size > sizeof(text) || vmf_get_buffer(file, text, size) != size) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "the peer sent no plan");
        return false;
    }
    return bench_plan_decode(text, size, plan, error) && vmf_session_complete(session, error);
}

static bool skip_stream(VmfFile *file, uint64_t size)
{
    g_autofree uint8_t *buffer = g_malloc(1 << 18);

    while (size) {
        size_t part = MIN(size, 1u << 18);

        if (vmf_get_buffer(file, buffer, part) != part) {
            return false;
        }
        size -= part;
    }
    return true;
}

static bool expect_devices(VmfSession *session, const BenchPlan *plan, BenchDevices *devices,
                           GError **error)
{
    return !bench_devices_parallel(plan) ||
           (bench_devices_add(devices, session, error) &&
            vmf_devices_expect(vmf_session_get_devices(session), error));
}

/* The source starts its devices there. */
static bool begin_devices(VmfSession *session, GError **error)
{
    return vmf_get_be32(vmf_session_get_file(session)) == BENCH_STOPPED &&
           vmf_devices_begin(vmf_session_get_devices(session), error);
}

/* Everything up to the end of the rounds, and all devices. */
static bool read_state(VmfSession *session, const BenchPlan *plan, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);

    return (!bench_devices_parallel(plan) || begin_devices(session, error)) &&
           (!plan->devices_by_stream || bench_devices_take(file, plan)) &&
           skip_stream(file, plan->stream) && vmf_get_be32(file) == BENCH_END_OF_ROUNDS &&
           (!bench_devices_parallel(plan) ||
            vmf_devices_load(vmf_session_get_devices(session), error));
}

/* Tells both sides why; sets *error if nothing has yet. */
static void end_badly(VmfSession *session, GError **error)
{
    g_autoptr(GError) failure = NULL;

    if (error && *error) {
        failure = g_error_copy(*error);
    } else if (vmf_file_check(vmf_session_get_file(session), &failure)) {
        failure =
            g_error_new(VMF_ERROR, VMF_ERROR_PROTOCOL, "the peer's stream is not a benchmark's");
    }
    if (error && !*error) {
        *error = g_error_copy(failure);
    }
    vmf_session_fail(session, g_steal_pointer(&failure));
}

/* Reads everything, reports, hands over. */
static bool serve_run(VmfSession *session, const BenchPlan *plan, const BenchMemory *memory,
                      BenchDevices *devices, double cpu_before, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);
    g_autoptr(VmfFile) back = vmf_file_get_return_path(file, error);
    VmfStats stats = {.size = sizeof(stats)};
    double cpu;
    bool ok;

    ok = back && expect_devices(session, plan, devices, error) && read_state(session, plan, error);
    if (ok) {
        cpu = bench_cpu_seconds() - cpu_before;
        vmf_session_get_stats(session, &stats);
        vmf_put_be32(back, BENCH_LOADED);
        vmf_file_flush(back, NULL);
        vmf_put_be64(back, plan->verify ? bench_memory_hash(memory) : 0);
        vmf_put_be64(back, (uint64_t)(cpu * 1e6));
        vmf_put_be64(back, stats.own_bytes);
        vmf_put_be64(back, bench_resident_above(plan->ram));
        vmf_put_be64(back, bench_devices_others_us(devices));
        vmf_file_flush(back, NULL);
        ok = vmf_file_at_end(file);
    }
    if (!ok) {
        end_badly(session, error);
    }
    return ok && vmf_session_complete(session, error);
}

static bool serve_one(VmfListener *listener, GError **error)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(BenchDevices) devices = NULL;
    g_autoptr(VmfSession) session = NULL;
    BenchMemory memory = {0};
    BenchPlan plan = {0};
    double cpu;
    bool ok;

    if (!receive_plan(listener, &plan, error) || !bench_memory_init(&memory, &plan, error)) {
        return false;
    }
    devices = bench_devices_new(&plan);
    cpu = bench_cpu_seconds();
    ok = vmf_ram_blocks_add(blocks, "bench.ram", memory.ram, memory.size,
                            (uint32_t)memory.page_size, error) &&
         (session = vmf_session_accept(listener, blocks, NULL, error)) &&
         serve_run(session, &plan, &memory, devices, cpu, error);
    if (!ok && session && error && *error) {
        g_printerr("vmferry: the migration failed: %s\n", (*error)->message);
    }
    vmf_session_free(g_steal_pointer(&session));
    bench_memory_clear(&memory);
    return ok;
}

bool bench_listen(const BenchOptions *options, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(options->listen, error);
    g_autoptr(VmfListener) listener = uri ? vmf_listener_new(uri, error) : NULL;

    if (!listener) {
        return false;
    }
    g_print("listening on %s\n", vmf_listener_address(listener));
    for (unsigned served = 0; !options->serve || served < options->serve; served++) {
        g_autoptr(GError) failure = NULL;

        if (!serve_one(listener, &failure)) {
            g_printerr("vmferry: run %u: %s\n", served + 1, failure->message);
            if (failure->code == VMF_ERROR_DEVICE || options->serve) {
                g_propagate_error(error, g_steal_pointer(&failure));
                return false;
            }
        }
    }
    return true;
}
