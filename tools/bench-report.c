/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-report.c -- progress, the table, and JSON */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "progress.h"
#include "say.h"

static double gib(const BenchRow *row)
{
    return (double)(row->stats.ram_bytes ? row->stats.ram_bytes : 1) / (1u << 30);
}

static double throughput(const BenchRow *row)
{
    return row->ram_seconds > 0 ? (double)row->stats.ram_bytes / row->ram_seconds : 0;
}

static double rounds_throughput(const BenchRow *row)
{
    return row->rounds_seconds > 0 ? (double)row->dirty_bytes / row->rounds_seconds : 0;
}

static double mean_write(const BenchRow *row)
{
    return row->stats.writes ? (double)row->stats.ram_written / (double)row->stats.writes : 0;
}

static const char *verdict(const BenchRow *row)
{
    return row->verified < 0 ? "-" : row->verified ? "yes" : "NO";
}

/* Prints one more line for a row with device state. */
static void print_devices(const BenchRow *r, const BenchPlan *plan)
{
    if (plan->devices) {
        g_print(
            "%-26s     %u devices of %.1f MiB by %s, %u save jobs at a time: switchover %.1f ms\n",
            "", plan->devices, (double)plan->device_size / (1 << 20),
            r->devices_by_stream ? "the stream" : "the channels", r->workers,
            r->switchover_seconds * 1e3);
    }
    if (plan->devices_slow && plan->devices_slow < plan->devices && !r->devices_by_stream) {
        g_print("%-26s     %u of them slow to load by %u ms; the others loaded after %.1f ms\n", "",
                plan->devices_slow, plan->device_delay_ms, r->others_loaded_seconds * 1e3);
    }
}

void bench_print_table(const BenchPlan *plan, const BenchRow *rows, unsigned count)
{
    g_print("\n%-26s %3s %-8s %8s %8s %6s %8s %9s %8s %8s %8s %8s %8s %9s %8s\n", "uri", "ch",
            "reg", "MiB/s", "Gb/s", "ratio", "bulk s", "rounds s", "dirty/s", "flush ms", "setup s",
            "reg s", "CPU src", "CPU dst", "verified");
    for (unsigned i = 0; i < count; i++) {
        const BenchRow *r = &rows[i];
        g_autofree char *ratio =
            r->raw > 0 ? g_strdup_printf("%.2f", throughput(r) / r->raw) : g_strdup("-");

        g_print("%-26.26s %3u %-8s %8.0f %8.2f %6s %8.3f %9.3f %8.0f %8.1f %8.3f %8.3f %8.2f %9.2f "
                "%8s\n",
                r->uri, r->stats.channels, r->stats.registration, throughput(r) / (1 << 20),
                throughput(r) * 8 / 1e9, ratio, r->bulk_seconds, r->rounds_seconds,
                rounds_throughput(r) / (1 << 20), r->flush_seconds * 1e3, r->setup_seconds,
                (double)r->stats.registration_ns / 1e9, r->source_cpu / gib(r),
                r->destination_cpu / gib(r), verdict(r));
        g_print("%-26s     %" G_GUINT64_FORMAT " writes of %.0f bytes, %" G_GUINT64_FORMAT
                " doorbells, %" G_GUINT64_FORMAT " registrations, %" G_GUINT64_FORMAT
                " evictions, own memory %.1f + %.1f MiB, raw %.0f (1 MiB) %.0f (page) MiB/s\n",
                "", r->stats.writes, mean_write(r), r->stats.doorbells, r->stats.registrations,
                r->stats.evictions, (double)r->source_own / (1 << 20),
                (double)r->destination_own / (1 << 20), r->raw / (1 << 20),
                r->raw_page / (1 << 20));
        print_devices(r, plan);
    }
    g_print(
        "(MiB/s counts guest RAM saved, by the time of RAM alone; dirty/s that of the rounds "
        "after the first; CPU in seconds per GiB, without set-up and guest; ratio to raw writes "
        "of 1 MiB)\n");
}

/* --- JSON --- */

static void add_number(JsonBuilder *b, const char *name, double value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_double_value(b, value);
}

static void add_integer(JsonBuilder *b, const char *name, uint64_t value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_int_value(b, (gint64)value);
}

static void add_text(JsonBuilder *b, const char *name, const char *value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_string_value(b, value);
}

static void add_row(JsonBuilder *b, const BenchRow *r, const char *pattern)
{
    json_builder_begin_object(b);
    add_text(b, "uri", r->uri);
    add_integer(b, "run", r->run);
    add_integer(b, "channels", r->stats.channels);
    add_text(b, "registration", r->stats.registration);
    add_text(b, "pattern", pattern);
    add_integer(b, "ram_bytes", r->stats.ram_bytes);
    add_integer(b, "bytes_written", r->stats.ram_written);
    add_integer(b, "zero_bytes", r->stats.zero_bytes);
    add_number(b, "seconds", r->seconds);
    add_number(b, "ram_seconds", r->ram_seconds);
    add_number(b, "throughput_bytes_per_second", throughput(r));
    if (r->raw > 0) {
        add_number(b, "raw_bytes_per_second", r->raw);
        add_number(b, "raw_page_bytes_per_second", r->raw_page);
    }
    add_number(b, "setup_seconds", r->setup_seconds);
    add_number(b, "bulk_seconds", r->bulk_seconds);
    add_number(b, "rounds_seconds", r->rounds_seconds);
    add_integer(b, "rounds_dirty_bytes", r->dirty_bytes);
    add_number(b, "rounds_throughput_bytes_per_second", rounds_throughput(r));
    add_number(b, "final_flush_seconds", r->flush_seconds);
    add_number(b, "final_ram_flush_seconds", r->ram_flush_seconds);
    add_number(b, "complete_seconds", r->complete_seconds);
    add_number(b, "switchover_seconds", r->switchover_seconds);
    add_number(b, "others_loaded_seconds", r->others_loaded_seconds);
    add_integer(b, "device_bytes", r->stats.device_bytes);
    add_text(b, "device_way", r->devices_by_stream ? "stream" : "channels");
    add_integer(b, "device_workers", r->workers);
    add_number(b, "registration_seconds", (double)r->stats.registration_ns / 1e9);
    add_integer(b, "registrations", r->stats.registrations);
    add_integer(b, "evictions", r->stats.evictions);
    add_integer(b, "chunk_size", r->stats.chunk_size);
    add_number(b, "source_cpu_seconds", r->source_cpu);
    add_number(b, "destination_cpu_seconds", r->destination_cpu);
    add_number(b, "source_setup_cpu_seconds", r->source_setup_cpu);
    add_number(b, "destination_setup_cpu_seconds", r->destination_setup_cpu);
    add_number(b, "source_idle_cpu_seconds", r->source_idle_cpu);
    add_number(b, "guest_cpu_seconds", r->guest_cpu);
    add_integer(b, "writes", r->stats.writes);
    add_number(b, "mean_write_bytes", mean_write(r));
    add_integer(b, "doorbells", r->stats.doorbells);
    add_integer(b, "source_own_bytes", r->source_own);
    add_integer(b, "destination_own_bytes", r->destination_own);
    add_integer(b, "source_extra_resident_bytes", r->source_extra);
    add_integer(b, "destination_extra_resident_bytes", r->destination_extra);
    add_integer(b, "destination_populated_bytes", r->populated);
    json_builder_set_member_name(b, "verified");
    if (r->verified < 0) {
        json_builder_add_null_value(b);
    } else {
        json_builder_add_boolean_value(b, r->verified);
    }
    json_builder_end_object(b);
}

static bool write_all(OutputFile *file, const char *text, GError **error)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t n = write(output_file_fd(file), text, left);

        if (n < 0 && errno != EINTR) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot write the --json file: %s",
                        g_strerror(errno));
            return false;
        }
        text += MAX(n, 0);
        left -= (size_t)MAX(n, 0);
    }
    if (!output_file_publish(file, error)) {
        return false;
    }
    output_file_settle(file);
    return true;
}

bool bench_write_json(OutputFile *file, const char *uri, const char *pattern, const BenchRow *rows,
                      unsigned count, GError **error)
{
    g_autoptr(JsonBuilder) b = json_builder_new();
    g_autoptr(JsonNode) root = NULL;
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;

    json_builder_begin_object(b);
    add_text(b, "version", VMF_VERSION);
    add_text(b, "uri", uri);
    json_builder_set_member_name(b, "runs");
    json_builder_begin_array(b);
    for (unsigned i = 0; i < count; i++) {
        add_row(b, &rows[i], pattern);
    }
    json_builder_end_array(b);
    json_builder_end_object(b);
    root = json_builder_get_root(b);
    text = json_to_string(root, TRUE);
    line = g_strconcat(text, "\n", NULL);
    return file ? write_all(file, line, error) : say("%s", line) || say_check(error);
}

/* --- progress --- */

void bench_progress(const BenchOptions *options, BenchProgress *progress, VmfSession *session,
                    unsigned round, uint64_t done, uint64_t total, bool last)
{
    VmfStats stats = {.size = sizeof(stats)};
    const ProgressHow show = options->progress_how;
    gint64 time = g_get_monotonic_time();
    double percent = total ? 100.0 * (double)done / (double)total : 100.0;
    double rate;
    char bar[PROGRESS_BAR];

    if (show == PROGRESS_NONE || (!last && time - progress->shown < G_USEC_PER_SEC / 5)) {
        return;
    }
    if (last) {
        if (show == PROGRESS_BAR_SHOWN && progress->shown) {
            g_printerr("\r\033[K");
        }
        return;
    }
    vmf_session_get_stats(session, &stats);
    rate = progress->shown ? (double)(stats.ram_bytes - progress->bytes) /
                                 ((double)(time - progress->shown) / 1e6)
                           : 0;
    progress->shown = time;
    progress->bytes = stats.ram_bytes;
    progress_bar(percent, bar);
    g_printerr("%sround %u [%s] %3.0f %%  %" G_GUINT64_FORMAT
               " MiB left  %.0f MiB/s  %" G_GUINT64_FORMAT " KiB in flight  %" G_GUINT64_FORMAT
               " MiB pinned%s",
               show == PROGRESS_BAR_SHOWN ? "\r\033[K" : "", round, bar, percent,
               (total - done) >> 20, rate / (1 << 20), stats.inflight_bytes >> 10,
               stats.registered_bytes >> 20, show == PROGRESS_BAR_SHOWN ? "" : "\n");
}
