/* SPDX-License-Identifier: BSD-2-Clause */
/* bench.h -- the parts of vmferry bench */

#ifndef VMFERRY_BENCH_H
#define VMFERRY_BENCH_H

#include <json-glib/json-glib.h>
#include <vmferry/vmferry.h>

#include "output-file.h"
#include "progress.h"

typedef enum { PATTERN_SEQUENTIAL, PATTERN_RANDOM, PATTERN_HOTSET } BenchPattern;

/* What one run does. The source tells the destination before it begins. */
typedef struct BenchPlan {
    uint64_t ram, page_size, stream;
    unsigned zero_percent, untouched_percent, dirty_percent, rounds, writers, idle_seconds;
    BenchPattern pattern;
    unsigned devices, device_delay_ms;
    unsigned devices_slow; /* number of devices that take the delay */
    uint64_t device_size;
    bool devices_by_stream; /* one after the other, in the stream */
    uint64_t seed;
    bool populate, verify;
    unsigned lead_seconds; /* how long the destination waits for its source */
} BenchPlan;

typedef struct BenchOptions {
    BenchPlan plan;
    char *listen, *uri, *vs;
    /* Lists to sweep; NULL: one run with the value of the URI or the plan. */
    char **channels, **registrations, **workers, **device_ways;
    unsigned runs, serve, wait_seconds;
    bool raw;
    uint64_t rate;
    char *json, *plot, *progress;
    ProgressHow progress_how;
} BenchOptions;

/* What one run measured. */
typedef struct BenchRow {
    const char *uri; /* the URI, of the options */
    unsigned workers;
    bool devices_by_stream;
    unsigned run;
    VmfStats stats;
    double setup_seconds, bulk_seconds, rounds_seconds, flush_seconds, complete_seconds;
    double ram_flush_seconds; /* the RAM part of the last flush */
    double seconds; /* from the first page to the last flush, without the guest's time between */
    double ram_seconds;           /* `seconds' up to the end of RAM's last flush */
    uint64_t dirty_bytes;         /* bytes saved in the rounds after the first */
    double switchover_seconds;    /* from the guest's stop to LOADED, without verifying */
    double others_loaded_seconds; /* at the destination, from the first load job's beginning until
                                     the devices without a delay are loaded; 0: not measured */
    /* CPU seconds of `seconds', and of the set-up; the source's is without the guest's own. */
    double source_cpu, destination_cpu, source_setup_cpu, destination_setup_cpu;
    double source_idle_cpu, guest_cpu;
    uint64_t populated;   /* bytes that the destination made resident while it waited */
    double raw, raw_page; /* bytes per second; 0: not measured */
    uint64_t source_own, destination_own;     /* bytes that the session itself has allocated */
    uint64_t source_extra, destination_extra; /* peak resident bytes beyond guest RAM */
    int verified;                             /* 1 yes, 0 no, -1 not asked */
} BenchRow;

/* --- bench-options.c --- */
bool bench_options_parse(int *argc, char ***argv, BenchOptions *options, GError **error);
void bench_options_clear(BenchOptions *options);

/* --- bench-devices.c --- */
static inline bool bench_devices_parallel(const BenchPlan *plan)
{
    return plan->devices && !plan->devices_by_stream;
}
/* The plan's devices in parallel jobs, on either side. It must outlive the session. */
typedef struct BenchDevices BenchDevices;
BenchDevices *bench_devices_new(const BenchPlan *plan);
void bench_devices_free(BenchDevices *devices);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BenchDevices, bench_devices_free)
/* Registers the devices, if there are any. */
bool bench_devices_add(BenchDevices *devices, VmfSession *session, GError **error);
/* BenchRow.others_loaded_seconds in microseconds, after all are loaded. */
uint64_t bench_devices_others_us(const BenchDevices *devices);
/* The same state as bytes of the stream, and the same jobs one after the other. */
void bench_devices_put(VmfFile *file, const BenchPlan *plan);
bool bench_devices_take(VmfFile *file, const BenchPlan *plan);

/* --- bench-plan.c --- */
char *bench_plan_encode(const BenchPlan *plan);
/* Checks every value, because the text comes from the wire. */
bool bench_plan_decode(const char *text, gssize size, BenchPlan *plan, GError **error);
const char *bench_pattern_name(BenchPattern pattern);
bool bench_pattern_parse(const char *name, BenchPattern *pattern);

/* The name of a run's RAM block. The caller frees it. */
char *bench_block_name(uint64_t token);

/* --- bench-memory.c --- */
typedef struct BenchMemory {
    uint8_t *ram;
    uint64_t size, page_size, pages;
    uint64_t *dirty; /* a bit for each page; atomic */
    uint64_t random;
} BenchMemory;

bool bench_memory_init(BenchMemory *memory, const BenchPlan *plan, GError **error);
void bench_memory_clear(BenchMemory *memory);
/* Gives a page new content, and marks it dirty. Several threads may do so. */
void bench_memory_write_page(BenchMemory *memory, uint64_t page, uint64_t content);
/* Gives the source's RAM its first content. */
void bench_memory_fill(BenchMemory *memory, const BenchPlan *plan);
/* Writes as many pages as the plan says for a round. */
void bench_memory_dirty(BenchMemory *memory, const BenchPlan *plan, uint64_t *random);
/* Finds the next dirty page from *page on, and clears its mark. Returns false at the end. */
bool bench_memory_next_dirty(BenchMemory *memory, uint64_t *page);
uint64_t bench_memory_hash(const BenchMemory *memory);
uint64_t bench_random(uint64_t *state);

/* --- bench-source.c, bench-listen.c --- */
bool bench_run(const VmfUri *uri, const BenchOptions *options, const BenchPlan *plan, BenchRow *row,
               GError **error);
bool bench_listen(const BenchOptions *options, GError **error);

/* What the destination reports at the end of a run, as be64 numbers on the return path. */
/*
 * They are: hash, CPU in microseconds, own bytes, extra resident bytes, others_loaded_seconds in
 * microseconds, CPU of the set-up in microseconds, populated bytes.
 */
#define BENCH_REPORT_WORDS 7
#define BENCH_BUSY "it is busy with another run"
/* Waits for BENCH_LOADED. Anything else is an error. */
bool bench_await_loaded(VmfFile *back, GError **error);
#define BENCH_LOADED 0x4c4f4144u        /* "LOAD" on the return path, before the report */
#define BENCH_STOPPED 0x53544f50u       /* "STOP" in the stream: load jobs may begin */
#define BENCH_END_OF_ROUNDS 0x454e4421u /* "END!" in the stream: now hash and report */

/* --- bench-report.c --- */
void bench_print_table(const BenchPlan *plan, const BenchRow *rows, unsigned count);
/* Writes to the file, or to standard output if it is NULL. */
bool bench_write_json(OutputFile *file, const char *uri, const char *pattern, const BenchRow *rows,
                      unsigned count, GError **error);
/* When progress was shown last, and how much had been sent then. */
typedef struct BenchProgress {
    gint64 shown;
    uint64_t bytes;
} BenchProgress;
void bench_progress(const BenchOptions *options, BenchProgress *progress, VmfSession *session,
                    unsigned round, uint64_t done, uint64_t total, bool last);

/* --- bench-plot.c --- */
/* Whether a plot of that name can be drawn: its end says the format, and gnuplot is needed. */
bool bench_plot_check(const char *name, GError **error);
/* Draws throughput by channels into the file of that name. */
bool bench_plot(const char *name, OutputFile *file, const BenchRow *rows, unsigned count,
                GError **error);

/* --- bench-process.c --- */
double bench_cpu_seconds(void);
/* The most memory that was ever resident, less `ram' bytes. */
uint64_t bench_resident_above(uint64_t ram);

#endif
