/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-listen.c -- the destination of benchmark runs */

#include <string.h>

#include "bench.h"
#include "say.h"

#define PLAN_MAX 4096

/*
 * After a plan its source must come with the run within that time, or another source gets its turn.
 */
#define RUN_WITHIN_SECONDS 30

/* A run that is expected. */
typedef struct Expected {
    BenchPlan plan;
    BenchMemory memory;
    uint64_t token; /* in the name of its RAM block, so that no other run is taken for it */
    gint64 since;
    bool nobody_came;
} Expected;

static bool read_plan(VmfFile *file, BenchPlan *plan, GError **error)
{
    char text[PLAN_MAX];
    uint32_t size = vmf_get_be32(file);

    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (size > sizeof(text) || vmf_get_buffer(file, text, size) != size) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "the peer sent no plan");
        return false;
    }
    return bench_plan_decode(text, size, plan, error);
}

static bool put_token(VmfFile *file, uint64_t token, GError **error)
{
    g_autoptr(VmfFile) back = vmf_file_get_return_path(file, error);

    if (!back) {
        return false;
    }
    vmf_put_be64(back, token);
    return vmf_file_flush(back, error);
}

static uint64_t new_token(void)
{
    return (uint64_t)g_random_int() << 32 | g_random_int();
}

/*
 * Accepts a session without RAM, which brings the next run's plan. On return the run's memory is
 * there.
 */
static bool receive_plan(VmfListener *listener, Expected *run, GError **error)
{
    g_autoptr(VmfRamBlocks) none = vmf_ram_blocks_new();
    g_autoptr(VmfSession) session = vmf_session_accept(listener, none, NULL, error);
    VmfFile *file = session ? vmf_session_get_file(session) : NULL;
    GError *failure = NULL;

    if (!session) {
        run->nobody_came = error && g_error_matches(*error, VMF_ERROR, VMF_ERROR_MISMATCH);
        return false;
    }
    run->token = new_token();
    if (read_plan(file, &run->plan, &failure) &&
        bench_memory_init(&run->memory, &run->plan, &failure) &&
        put_token(file, run->token, &failure) && vmf_session_complete(session, &failure)) {
        run->since = g_get_monotonic_time();
        return true;
    }
    vmf_session_fail(session, g_error_copy(failure)); /* the source hears the reason */
    g_propagate_error(error, failure);
    return false;
}

/* Whether the time of the run's source is over. */
static bool is_overdue(const Expected *run)
{
    const gint64 seconds = RUN_WITHIN_SECONDS + (gint64)run->plan.lead_seconds;

    return g_get_monotonic_time() - run->since > seconds * G_USEC_PER_SEC;
}

/* Other sources find other RAM blocks, which tells them that it is not their turn. */
static VmfSession *accept_run(VmfListener *listener, Expected *run, VmfRamBlocks *blocks,
                              GError **error)
{
    for (;;) {
        g_autoptr(GError) failure = NULL;
        VmfSession *session = vmf_session_accept(listener, blocks, NULL, &failure);

        if (session) {
            return session;
        }
        if (!g_error_matches(failure, VMF_ERROR, VMF_ERROR_MISMATCH)) {
            g_propagate_error(error, g_steal_pointer(&failure));
            return NULL;
        }
        if (is_overdue(run)) {
            run->nobody_came = true;
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                        "its source has sent a plan, and did not come within %u s",
                        RUN_WITHIN_SECONDS);
            return NULL;
        }
    }
}

/* --- refusing other sources while a run is measured --- */

/*
 * A source with RAM finds other RAM blocks here. A source that brings a plan has no RAM, so its
 * session is made to fail with the same error.
 */

typedef struct Doorkeeper {
    VmfListener *listener;
    GCancellable *over;
    GThread *thread;
} Doorkeeper;

static void *doorkeeper_main(void *opaque)
{
    Doorkeeper *keeper = opaque;
    g_autoptr(VmfRamBlocks) none = vmf_ram_blocks_new();

    while (!g_cancellable_is_cancelled(keeper->over)) {
        g_autoptr(VmfSession) session =
            vmf_session_accept(keeper->listener, none, keeper->over, NULL);

        if (session) {
            vmf_session_fail(session, g_error_new(VMF_ERROR, VMF_ERROR_MISMATCH, BENCH_BUSY));
        }
    }
    return NULL;
}

/* Without a thread other sources are not refused, and time out. */
static void doorkeeper_start(Doorkeeper *keeper, VmfListener *listener)
{
    keeper->listener = listener;
    keeper->over = g_cancellable_new();
    keeper->thread = g_thread_try_new("bench-door", doorkeeper_main, keeper, NULL);
}

static void doorkeeper_end(Doorkeeper *keeper)
{
    g_cancellable_cancel(keeper->over);
    if (keeper->thread) {
        g_thread_join(keeper->thread);
    }
    g_object_unref(keeper->over);
}

/* --- a run --- */

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

/* The source starts its devices at this place in the stream. */
static bool begin_devices(VmfSession *session, GError **error)
{
    return vmf_get_be32(vmf_session_get_file(session)) == BENCH_STOPPED &&
           vmf_devices_begin(vmf_session_get_devices(session), error);
}

/* Reads everything up to the end of the rounds, and loads all devices. */
static bool read_state(VmfSession *session, const BenchPlan *plan, GError **error)
{
    VmfFile *file = vmf_session_get_file(session);

    return (!bench_devices_parallel(plan) || begin_devices(session, error)) &&
           (!plan->devices_by_stream || bench_devices_take(file, plan)) &&
           skip_stream(file, plan->stream) && vmf_get_be32(file) == BENCH_END_OF_ROUNDS &&
           (!bench_devices_parallel(plan) ||
            vmf_devices_load(vmf_session_get_devices(session), error));
}

/* Tells both sides why, and sets *error if nothing has yet. */
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
static bool serve_run(VmfSession *session, const Expected *run, BenchDevices *devices,
                      double setup_cpu, GError **error)
{
    const BenchPlan *plan = &run->plan;
    const double cpu_before = bench_cpu_seconds();
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
        vmf_put_be64(back, plan->verify ? bench_memory_hash(&run->memory) : 0);
        vmf_put_be64(back, (uint64_t)(cpu * 1e6));
        vmf_put_be64(back, stats.own_bytes);
        vmf_put_be64(back, bench_resident_above(plan->ram));
        vmf_put_be64(back, bench_devices_others_us(devices));
        vmf_put_be64(back, (uint64_t)(setup_cpu * 1e6));
        vmf_put_be64(back, stats.populated_bytes);
        vmf_file_flush(back, NULL);
        ok = vmf_file_at_end(file);
    }
    if (!ok) {
        end_badly(session, error);
    }
    return ok && vmf_session_complete(session, error);
}

static bool serve_expected(VmfListener *listener, Expected *run, GError **error)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(BenchDevices) devices = bench_devices_new(&run->plan);
    g_autofree char *name = bench_block_name(run->token);
    g_autoptr(VmfSession) session = NULL;
    Doorkeeper keeper;
    double cpu = bench_cpu_seconds();
    bool ok;

    if (!vmf_ram_blocks_add(blocks, name, run->memory.ram, run->memory.size,
                            (uint32_t)run->memory.page_size, error)) {
        return false;
    }
    vmf_ram_blocks_set_discardable(blocks); /* no other program has its pages */
    session = accept_run(listener, run, blocks, error);
    if (!session) {
        return false;
    }
    doorkeeper_start(&keeper, listener);
    ok = serve_run(session, run, devices, bench_cpu_seconds() - cpu, error);
    if (!ok && error && *error) {
        g_printerr("vmferry: the migration failed: %s\n", (*error)->message);
    }
    doorkeeper_end(&keeper);
    vmf_session_free(g_steal_pointer(&session)); /* before the memory that it uses */
    return ok;
}

/* *counts: it was a run, and not a peer without a plan. */
static bool serve_one(VmfListener *listener, bool *counts, GError **error)
{
    g_autoptr(GError) failure = NULL;
    Expected run = {0};
    bool ok = receive_plan(listener, &run, &failure) && serve_expected(listener, &run, &failure);

    bench_memory_clear(&run.memory);
    *counts = ok || !run.nobody_came;
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&failure));
    }
    return ok;
}

bool bench_listen(const BenchOptions *options, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(options->listen, error);
    g_autoptr(VmfListener) listener = uri ? vmf_listener_new(uri, error) : NULL;
    unsigned served = 0;

    if (!listener) {
        return false;
    }
    g_print("listening on %s\n", vmf_listener_address(listener));
    if (!say_check(error)) {
        return false;
    }
    while (!options->serve || served < options->serve) {
        g_autoptr(GError) failure = NULL;
        bool counts;

        if (!serve_one(listener, &counts, &failure)) {
            g_printerr("vmferry: run %u: %s\n", served + 1, failure->message);
            if (g_error_matches(failure, VMF_ERROR, VMF_ERROR_DEVICE) ||
                (options->serve && counts)) {
                g_propagate_error(error, g_steal_pointer(&failure));
                return false;
            }
        }
        served += counts;
    }
    return true;
}
