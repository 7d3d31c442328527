/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-source.c -- one benchmark run: a synthetic guest is migrated, and everything is timed */

#include <string.h>
#include <time.h>

#include "bench.h"

static double now(void)
{
    return (double)g_get_monotonic_time() / 1e6;
}

/* --- the plan --- */

static VmfSession *connect_with_plan(const VmfUri *uri, const BenchPlan *plan, GError **error)
{
    g_autoptr(VmfRamBlocks) none = vmf_ram_blocks_new();
    g_autoptr(VmfUri) one_channel = vmf_uri_parse(vmf_uri_text(uri), error);
    g_autofree char *text = bench_plan_encode(plan);
    VmfSession *session;
    VmfFile *file;

    if (!one_channel || !vmf_uri_set(one_channel, "channels", "1", error)) {
        return NULL;
    }
    session = vmf_session_connect(one_channel, none, NULL, error);
    if (session) {
        file = vmf_session_get_file(session);
        vmf_put_be32(file, (uint32_t)strlen(text));
        vmf_put_buffer(file, text, strlen(text));
        vmf_file_flush(file, NULL); /* the thread that reads the answer sees a failure */
    }
    return session;
}

static bool take_token(VmfSession *session, uint64_t *token, GError **error)
{
    g_autoptr(VmfFile) back = vmf_file_get_return_path(vmf_session_get_file(session), error);

    if (!back) {
        return false;
    }
    *token = vmf_get_be64(back);
    return vmf_file_check(back, error) && vmf_session_complete(session, error);
}

/* Sends the plan. In the first run both sides make their memory at the same time. */
static bool send_plan(const VmfUri *uri, const BenchPlan *plan, BenchMemory *memory,
                      uint64_t *token, GError **error)
{
    g_autoptr(VmfSession) session = connect_with_plan(uri, plan, error);

    if (!session) {
        return false;
    }
    if (!memory->ram) {
        if (!bench_memory_init(memory, plan, error)) {
            return false;
        }
        bench_memory_fill(memory, plan);
    }
    return take_token(session, token, error);
}

#define PAUSE_MOST_MS 3000

/*
 * Waits until it is this run's turn. Until then a session without RAM finds other RAM blocks. The
 * destination cancels one when it stops refusing sources.
 */
static bool await_turn(const VmfUri *uri, const BenchOptions *options, const BenchPlan *plan,
                       BenchMemory *memory, uint64_t *token, GError **error)
{
    const gint64 end = g_get_monotonic_time() + (gint64)options->wait_seconds * G_TIME_SPAN_SECOND;
    bool said = false;
    int pause_ms = 200;

    for (;;) {
        g_autoptr(GError) failure = NULL;

        if (send_plan(uri, plan, memory, token, &failure)) {
            return true;
        }
        if (!g_error_matches(failure, VMF_ERROR, VMF_ERROR_MISMATCH) &&
            !g_error_matches(failure, VMF_ERROR, VMF_ERROR_CANCELLED)) {
            g_propagate_error(error, g_steal_pointer(&failure));
            return false;
        }
        if (g_get_monotonic_time() >= end) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_REFUSED,
                        "%s: " BENCH_BUSY "; waited for %u s (--wait)", vmf_uri_text(uri),
                        options->wait_seconds);
            return false;
        }
        if (!said) {
            g_printerr("vmferry: %s: " BENCH_BUSY ", waiting for its turn\n", vmf_uri_text(uri));
            said = true;
        }
        /*
         * Sources ask at different moments, and rarely if many wait, because each costs the
         * destination time.
         */
        g_usleep((gulong)g_random_int_range(pause_ms / 2, pause_ms) * 1000);
        pause_ms = MIN(pause_ms * 2, PAUSE_MOST_MS);
    }
}

/* --- the guest --- */

typedef struct Writer {
    BenchMemory *memory;
    const BenchPlan *plan;
    uint64_t random;
    uint64_t cpu_ns; /* atomic: CPU time of the thread */
    int *stop;       /* atomic */
    GThread *thread;
} Writer;

static uint64_t thread_cpu_ns(void)
{
    struct timespec time = {0};

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *writer_main(void *opaque)
{
    Writer *writer = opaque;

    while (!g_atomic_int_get(writer->stop)) {
        bench_memory_write_page(writer->memory,
                                bench_random(&writer->random) % writer->memory->pages,
                                bench_random(&writer->random));
        __atomic_store_n(&writer->cpu_ns, thread_cpu_ns(), __ATOMIC_RELAXED);
        g_usleep(100);
    }
    return NULL;
}

typedef struct Run {
    const BenchOptions *options;
    const BenchPlan *plan;
    BenchMemory *memory;
    const VmfRamBlock *block;
    VmfSession *session;
    VmfFile *file;
    BenchRow *row;
    BenchProgress progress;
    Writer *writers; /* of the plan */
    unsigned writer_count;
} Run;

/* --- timing --- */

/* CPU time of this process, without its guest's threads. */
static double own_cpu(const Run *run)
{
    uint64_t guest_ns = 0;

    for (unsigned i = 0; i < run->writer_count; i++) {
        guest_ns += __atomic_load_n(&run->writers[i].cpu_ns, __ATOMIC_RELAXED);
    }
    return bench_cpu_seconds() - (double)guest_ns / 1e9;
}

typedef struct Stopwatch {
    double began, cpu;
} Stopwatch;

static Stopwatch start_timing(const Run *run)
{
    return (Stopwatch){.began = now(), .cpu = own_cpu(run)};
}

/* The seconds since then; the CPU time is the source's. */
static double stop_timing(const Run *run, const Stopwatch *watch)
{
    run->row->source_cpu += own_cpu(run) - watch->cpu;
    return now() - watch->began;
}

/* --- rounds --- */

/* Saves every dirty page, in the order in which a dirty bitmap is scanned. */
static uint64_t save_dirty(Run *run, unsigned round)
{
    uint64_t saved = 0, pages = 0;

    for (uint64_t page = 0; bench_memory_next_dirty(run->memory, &page); page++) {
        uint64_t offset = page * run->memory->page_size;
        uint64_t length = MIN(run->memory->page_size, run->memory->size - offset);

        while (G_UNLIKELY(vmf_file_rate_exceeded(run->file))) {
            g_usleep((gulong)vmf_file_rate_delay(run->file));
        }
        if (!vmf_save_ram_page(run->file, run->block, offset, length)) {
            break;
        }
        saved += length;
        if (++pages % 4096 == 0) {
            bench_progress(run->options, &run->progress, run->session, round, offset,
                           run->memory->size, false);
        }
    }
    return saved;
}

static bool bulk_round(Run *run)
{
    const Stopwatch watch = start_timing(run);

    save_dirty(run, 1);
    vmf_flush_ram_pages(run->file, VMF_FLUSH_ROUND);
    run->row->bulk_seconds = stop_timing(run, &watch);
    return vmf_file_check(run->file, NULL);
}

static bool dirty_rounds(Run *run)
{
    uint64_t random = run->memory->random;

    for (unsigned round = 0; round < run->plan->rounds; round++) {
        const uint64_t before = thread_cpu_ns();
        Stopwatch watch;

        bench_memory_dirty(run->memory, run->plan, &random);
        run->row->guest_cpu += (double)(thread_cpu_ns() - before) / 1e9;
        watch = start_timing(run);
        run->row->dirty_bytes += save_dirty(run, 2 + round);
        if (!vmf_flush_ram_pages(run->file, VMF_FLUSH_ROUND)) {
            return false;
        }
        run->row->rounds_seconds += stop_timing(run, &watch);
    }
    return true;
}

static void put_stream(Run *run)
{
    g_autofree uint8_t *bytes = g_malloc0(1 << 18);

    for (uint64_t left = run->plan->stream; left;) {
        size_t part = MIN(left, 1u << 18);

        vmf_put_buffer(run->file, bytes, part);
        left -= part;
    }
}

/*
 * Device state in parallel jobs goes beside the last RAM. In the stream it goes after the last RAM.
 * After the stream's end the destination loads devices that are ready, so none of them waits.
 */
static bool send_state(Run *run, GError **error)
{
    const BenchPlan *plan = run->plan;
    const double began = now();
    VmfDevices *devices =
        bench_devices_parallel(plan) ? vmf_session_get_devices(run->session) : NULL;

    if (devices) {
        vmf_put_be32(run->file, BENCH_STOPPED);
        if (!vmf_devices_start(devices, error)) {
            return false;
        }
    }
    save_dirty(run, 2 + plan->rounds);
    if (!vmf_flush_ram_pages(run->file, VMF_FLUSH_FINAL)) {
        return vmf_file_check(run->file, error);
    }
    run->row->ram_flush_seconds = now() - began;
    if (plan->devices_by_stream) {
        bench_devices_put(run->file, plan);
    }
    put_stream(run);
    vmf_put_be32(run->file, BENCH_END_OF_ROUNDS);
    return vmf_file_flush(run->file, error) && (!devices || vmf_devices_finish(devices, error));
}

/* Reads the destination's report. */
static bool read_report(Run *run, VmfFile *back, GError **error)
{
    uint64_t report[BENCH_REPORT_WORDS], hash = 0;
    BenchRow *row = run->row;

    if (run->plan->verify) {
        hash = bench_memory_hash(run->memory);
    }
    for (unsigned i = 0; i < BENCH_REPORT_WORDS; i++) {
        report[i] = vmf_get_be64(back);
    }
    if (!vmf_file_check(back, error)) {
        return false;
    }
    row->verified = run->plan->verify ? report[0] == hash : -1;
    row->destination_cpu = (double)report[1] / 1e6;
    row->destination_own = report[2];
    row->destination_extra = report[3];
    row->others_loaded_seconds = (double)report[4] / 1e6;
    row->destination_setup_cpu = (double)report[5] / 1e6;
    row->populated = report[6];
    return true;
}

bool bench_await_loaded(VmfFile *back, GError **error)
{
    const uint32_t word = vmf_get_be32(back);

    if (!vmf_file_check(back, error)) {
        return false;
    }
    if (word != BENCH_LOADED) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the destination answered 0x%08x, which does not say that all is loaded: is it "
                    "a vmferry bench of this version?",
                    word);
        return false;
    }
    return true;
}

/* Everything after the guest has stopped. */
static bool switch_over(Run *run, GError **error)
{
    g_autoptr(VmfFile) back = vmf_file_get_return_path(run->file, error);
    BenchRow *row = run->row;
    const Stopwatch watch = start_timing(run);
    double began = watch.began;

    if (!back || !send_state(run, error)) {
        return false;
    }
    row->flush_seconds = stop_timing(run, &watch);
    vmf_session_get_stats(run->session, &row->stats);
    /* The destination answers after it has loaded everything, and before it checks its RAM. */
    if (!bench_await_loaded(back, error)) {
        return false;
    }
    row->switchover_seconds = now() - began;
    if (!read_report(run, back, error)) {
        return false;
    }
    began = now();
    if (!vmf_session_complete(run->session, error)) {
        return false;
    }
    row->complete_seconds = now() - began;
    return true;
}

static bool measure_raw(Run *run, GError **error)
{
    const uint64_t big = 1024 * 1024, page = 4096;
    double seconds;

    if (!vmf_session_raw_write(run->session, big, MAX(run->plan->ram / 2, 64 * big), &seconds,
                               error)) {
        return false;
    }
    run->row->raw = (double)MAX(run->plan->ram / 2, 64 * big) / seconds;
    if (!vmf_session_raw_write(run->session, page, 16384 * page, &seconds, error)) {
        return false;
    }
    run->row->raw_page = 16384.0 * (double)page / seconds;
    return true;
}

/* Measures what an idle session costs. The peer's death ends it early. */
static bool stay_idle(Run *run, GError **error)
{
    const gint64 end =
        g_get_monotonic_time() + (gint64)run->plan->idle_seconds * G_TIME_SPAN_SECOND;
    const double cpu = bench_cpu_seconds();
    gint64 left;

    while ((left = end - g_get_monotonic_time()) > 0) {
        g_usleep((gulong)MIN(left, G_TIME_SPAN_SECOND / 2));
        if (!vmf_session_check(run->session, error)) {
            return false;
        }
    }
    run->row->source_idle_cpu = bench_cpu_seconds() - cpu;
    return true;
}

static bool start_writers(Run *run, int *stop, GError **error)
{
    const BenchPlan *plan = run->plan;

    run->writers = g_new0(Writer, MAX(plan->writers, 1));
    while (run->writer_count < plan->writers) {
        Writer *writer = &run->writers[run->writer_count];
        g_autoptr(GError) failure = NULL;

        *writer = (Writer){.memory = run->memory,
                           .plan = plan,
                           .random = plan->seed + run->writer_count + 1,
                           .stop = stop};
        writer->thread = g_thread_try_new("bench-writer", writer_main, writer, &failure);
        if (!writer->thread) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                        "only %u of %u --writers could be started: %s (see the limit of processes, "
                        "ulimit -u, and the control group's pids.max)",
                        run->writer_count, plan->writers, failure->message);
            return false;
        }
        run->writer_count++;
    }
    return true;
}

static void stop_writers(Run *run, int *stop)
{
    g_atomic_int_set(stop, 1);
    for (unsigned i = 0; i < run->writer_count; i++) {
        g_thread_join(run->writers[i].thread);
        run->row->guest_cpu += (double)run->writers[i].cpu_ns / 1e9;
    }
}

static bool migrate(Run *run, GError **error)
{
    int stop = 0;
    bool ok;

    if (!stay_idle(run, error) || (run->options->raw && !measure_raw(run, error))) {
        return false;
    }
    vmf_file_set_rate_limit(run->file, run->options->rate);
    ok = start_writers(run, &stop, error) && bulk_round(run) && dirty_rounds(run);
    stop_writers(run, &stop);
    ok = ok && switch_over(run, error);
    bench_progress(run->options, &run->progress, run->session, 0, 1, 1, true);
    g_free(run->writers);
    return ok;
}

/* Connects as the source of the run that the destination expects. */
static bool connect_run(Run *run, const VmfUri *uri, VmfRamBlocks *blocks, GError **error)
{
    const double began = now(), cpu = bench_cpu_seconds();

    run->session = vmf_session_connect(uri, blocks, NULL, error);
    if (!run->session) {
        return false;
    }
    run->row->setup_seconds = now() - began;
    run->row->source_setup_cpu = bench_cpu_seconds() - cpu;
    run->file = vmf_session_get_file(run->session);
    vmf_session_get_stats(run->session, &run->row->stats);
    return true;
}

static void measure_sums(Run *run)
{
    BenchRow *row = run->row;

    row->seconds = row->bulk_seconds + row->rounds_seconds + row->flush_seconds;
    row->ram_seconds = row->bulk_seconds + row->rounds_seconds + row->ram_flush_seconds;
    row->source_own = row->stats.own_bytes;
    row->source_extra = bench_resident_above(run->plan->ram);
}

static bool run_session(Run *run, const VmfUri *uri, uint64_t token, GError **error)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(BenchDevices) devices = bench_devices_new(run->plan);
    g_autofree char *name = bench_block_name(token);
    bool ok;

    run->block = vmf_ram_blocks_add(blocks, name, run->memory->ram, run->memory->size,
                                    (uint32_t)run->memory->page_size, error);
    g_usleep((gulong)run->plan->lead_seconds * G_USEC_PER_SEC);
    if (!run->block || !connect_run(run, uri, blocks, error)) {
        return false;
    }
    ok = bench_devices_add(devices, run->session, error) && migrate(run, error);
    measure_sums(run);
    if (!ok && error && !*error && vmf_session_check(run->session, error)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "the migration failed");
    }
    if (!ok && error) {
        /* Printed at once, because closing a dead connection may keep the kernel busy for long. */
        g_printerr("vmferry: the migration failed: %s\n", (*error)->message);
    }
    vmf_session_free(run->session);
    return ok;
}

bool bench_run(const VmfUri *uri, const BenchOptions *options, const BenchPlan *plan, BenchRow *row,
               GError **error)
{
    BenchMemory memory = {0};
    Run run = {.options = options, .plan = plan, .memory = &memory, .row = row};
    uint64_t token = 0;
    bool ok;

    row->stats.size = sizeof(row->stats);
    ok = await_turn(uri, options, plan, &memory, &token, error) &&
         run_session(&run, uri, token, error);
    bench_memory_clear(&memory);
    return ok;
}
