/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-source.c -- one benchmark run: a synthetic guest is migrated and everything is timed */

#include <string.h>

#include "bench.h"

static double now(void)
{
    return (double)g_get_monotonic_time() / 1e6;
}

static bool send_plan(const VmfUri *uri, const BenchPlan *plan, GError **error)
{
    g_autoptr(VmfRamBlocks) none = vmf_ram_blocks_new();
    g_autoptr(VmfUri) one_channel = vmf_uri_parse(vmf_uri_text(uri), error);
    g_autoptr(VmfSession) session = NULL;
    g_autofree char *text = bench_plan_encode(plan);
    VmfFile *file;

    if (!one_channel || !vmf_uri_set(one_channel, "channels", "1", error)) {
        return false;
    }
    session = vmf_session_connect(one_channel, none, NULL, error);
    if (!session) {
        return false;
    }
    file = vmf_session_get_file(session);
    vmf_put_be32(file, (uint32_t)strlen(text));
    vmf_put_buffer(file, text, strlen(text));
    return vmf_session_complete(session, error);
}

/* --- the guest --- */

typedef struct Writer {
    BenchMemory *memory;
    const BenchPlan *plan;
    uint64_t random;
    int *stop; /* atomic */
    GThread *thread;
} Writer;

static void *writer_main(void *opaque)
{
    Writer *writer = opaque;

    while (!g_atomic_int_get(writer->stop)) {
        bench_memory_write_page(writer->memory,
                                bench_random(&writer->random) % writer->memory->pages,
                                bench_random(&writer->random));
        g_usleep(100);
    }
    return NULL;
}

/* --- rounds --- */

typedef struct Run {
    const BenchOptions *options;
    const BenchPlan *plan;
    BenchMemory *memory;
    const VmfRamBlock *block;
    VmfSession *session;
    VmfFile *file;
    BenchRow *row;
    BenchProgress progress;
} Run;

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
    double began = now();

    save_dirty(run, 1);
    vmf_flush_ram_pages(run->file, VMF_FLUSH_ROUND);
    run->row->bulk_seconds = now() - began;
    return vmf_file_check(run->file, NULL);
}

static bool dirty_rounds(Run *run)
{
    uint64_t random = run->memory->random;

    for (unsigned round = 0; round < run->plan->rounds; round++) {
        double began;

        bench_memory_dirty(run->memory, run->plan, &random);
        began = now();
        run->row->dirty_bytes += save_dirty(run, 2 + round);
        if (!vmf_flush_ram_pages(run->file, VMF_FLUSH_ROUND)) {
            return false;
        }
        run->row->rounds_seconds += now() - began;
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
 * Device state by parallel jobs goes beside the last RAM; in the stream it goes behind it. The
 * stream's end lets the destination load devices that are ready, so it waits for none of them.
 */
static bool send_state(Run *run, GError **error)
{
    const BenchPlan *plan = run->plan;
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
    if (plan->devices_by_stream) {
        bench_devices_put(run->file, plan);
    }
    put_stream(run);
    vmf_put_be32(run->file, BENCH_END_OF_ROUNDS);
    return vmf_file_flush(run->file, error) && (!devices || vmf_devices_finish(devices, error));
}

/* What the destination says of its side. */
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
    return true;
}

/* Everything behind the guest's stop. */
static bool switch_over(Run *run, GError **error)
{
    g_autoptr(VmfFile) back = vmf_file_get_return_path(run->file, error);
    BenchRow *row = run->row;
    double began = now(), cpu = bench_cpu_seconds();

    if (!back || !send_state(run, error)) {
        return false;
    }
    row->flush_seconds = now() - began;
    row->source_cpu += bench_cpu_seconds() - cpu;
    vmf_session_get_stats(run->session, &row->stats);
    /* It says when it has loaded everything, before it looks at its RAM. */
    if (vmf_get_be32(back) != BENCH_LOADED) {
        return vmf_file_check(back, error);
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

/* What an idle session costs; its peer's death ends it early. */
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

static bool migrate(Run *run, GError **error)
{
    g_autofree Writer *writers = g_new0(Writer, run->plan->writers + 1);
    double cpu;
    int stop = 0;
    bool ok;

    if (!stay_idle(run, error) || (run->options->raw && !measure_raw(run, error))) {
        return false;
    }
    cpu = bench_cpu_seconds();
    vmf_file_set_rate_limit(run->file, run->options->rate);
    for (unsigned i = 0; i < run->plan->writers; i++) {
        writers[i] = (Writer){.memory = run->memory,
                              .plan = run->plan,
                              .random = run->plan->seed + i + 1,
                              .stop = &stop};
        writers[i].thread = g_thread_new("bench-writer", writer_main, &writers[i]);
    }
    ok = bulk_round(run) && dirty_rounds(run);
    g_atomic_int_set(&stop, 1);
    for (unsigned i = 0; i < run->plan->writers; i++) {
        g_thread_join(writers[i].thread);
    }
    run->row->source_cpu = bench_cpu_seconds() - cpu;
    ok = ok ? switch_over(run, error) : vmf_file_check(run->file, error);
    bench_progress(run->options, &run->progress, run->session, 0, 1, 1, true);
    return ok;
}

bool bench_run(const VmfUri *uri, const BenchOptions *options, const BenchPlan *plan, BenchRow *row,
               GError **error)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(BenchDevices) devices = bench_devices_new(plan);
    BenchMemory memory = {0};
    Run run = {.options = options, .plan = plan, .memory = &memory, .row = row};
    double began;
    bool ok;

    row->stats.size = sizeof(row->stats);
    if (!send_plan(uri, plan, error) || !bench_memory_init(&memory, plan, error)) {
        return false;
    }
    bench_memory_fill(&memory, plan);
    run.block = vmf_ram_blocks_add(blocks, "bench.ram", memory.ram, memory.size,
                                   (uint32_t)memory.page_size, error);
    began = now();
    run.session = run.block ? vmf_session_connect(uri, blocks, NULL, error) : NULL;
    ok = run.session != NULL;
    if (ok) {
        row->setup_seconds = now() - began;
        run.file = vmf_session_get_file(run.session);
        vmf_session_get_stats(run.session, &row->stats);
        ok = bench_devices_add(devices, run.session, error) && migrate(&run, error);
        row->seconds = row->bulk_seconds + row->rounds_seconds + row->flush_seconds;
        row->source_own = row->stats.own_bytes;
        row->source_extra = bench_resident_above(plan->ram);
        if (!ok && error && !*error) {
            vmf_session_check(run.session, error);
        }
        if (!ok && error) {
            /* Said at once: taking a dead connection down may keep the kernel busy for long. */
            g_printerr("vmferry: the migration failed: %s\n", (*error)->message);
        }
    }
    vmf_session_free(run.session);
    bench_memory_clear(&memory);
    return ok;
}
