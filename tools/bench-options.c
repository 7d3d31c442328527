/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-options.c -- the command line of vmferry bench */

#include <string.h>

#include "bench.h"

/* The options as texts, before they are checked. */
typedef struct Texts {
    char *ram, *page_size, *stream, *devices, *pattern, *channels, *registration, *workers, *ways,
        *rate;
    int zero, untouched, dirty, rounds, runs, writers, serve, idle, wait, lead;
    gint64 seed;
    gboolean verify, raw, no_populate, once;
} Texts;

static bool usage(GError **error, const char *option, const char *value, const char *allowed)
{
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "--%s %s: allowed is %s", option,
                value, allowed);
    return false;
}

#define SIZE_MOST (1ull << 44)

static bool parse_size(const char *option, const char *text, uint64_t least, uint64_t *size,
                       GError **error)
{
    static const char units[] = "KMGT";
    g_autofree char *allowed = g_strdup_printf(
        "a size such as 65536, 64K, 256M or 4GiB, from %" G_GUINT64_FORMAT " to 16T", least);
    unsigned shift = 0;
    char *end;
    const char *unit;

    *size = g_ascii_strtoull(text, &end, 10);
    unit = *end ? strchr(units, g_ascii_toupper(*end)) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end += g_ascii_strcasecmp(end + 1, "iB") == 0 ? 3 : 1; /* as in a URI's options */
    }
    if (!g_ascii_isdigit(*text) || *end || *size > SIZE_MOST >> shift || *size << shift < least) {
        return usage(error, option, text, allowed);
    }
    *size <<= shift;
    return true;
}

/* Takes a number up to `most'. *end is what follows it. */
static bool take_number(const char *text, guint64 most, guint64 *value, char **end)
{
    *value = g_ascii_strtoull(text, end, 10);
    return *end != text && g_ascii_isdigit(*text) && *value <= most;
}

static bool parse_devices(const char *text, BenchPlan *plan, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", 0);
    guint64 count = 0, delay = 0, slow = 0;
    char *size;
    bool ok = take_number(parts[0] ? parts[0] : "", 4096, &count, &size) && count && *size == 'x' &&
              parse_size("devices", size + 1, 1, &plan->device_size, NULL) &&
              plan->device_size <= 1u << 30;

    slow = count;
    for (unsigned i = 1; ok && parts[i]; i++) {
        char *unit = "";

        ok = g_str_has_prefix(parts[i], "job-delay=")
                 ? take_number(parts[i] + 10, 60 * 1000, &delay, &unit) && g_str_equal(unit, "ms")
                 : g_str_has_prefix(parts[i], "slow=") &&
                       take_number(parts[i] + 5, count, &slow, &unit) && !*unit;
    }
    if (!ok) {
        return usage(error, "devices", text,
                     "NxSIZE[,job-delay=MILLISECONDSms[,slow=HOW-MANY]], such as 4x64M or "
                     "4x64M,job-delay=20ms,slow=1, at most 4096x1G and 60000ms");
    }
    plan->devices = (unsigned)count;
    plan->device_delay_ms = (unsigned)delay;
    plan->devices_slow = delay ? (unsigned)slow : 0;
    return true;
}

static bool percent(const char *option, int value, unsigned *into, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d", value);

    *into = (unsigned)value;
    return (value >= 0 && value <= 100) || usage(error, option, text, "0 to 100");
}

static bool number(const char *option, int value, int least, int most, unsigned *into,
                   GError **error)
{
    g_autofree char *text = g_strdup_printf("%d", value);
    g_autofree char *allowed = g_strdup_printf("%d to %d", least, most);

    *into = (unsigned)value;
    return (value >= least && value <= most) || usage(error, option, text, allowed);
}

static bool check(const Texts *t, BenchOptions *o, GError **error)
{
    BenchPlan *plan = &o->plan;

    if (!progress_parse(o->progress, &o->progress_how, error) ||
        !parse_size("ram", t->ram, 65536, &plan->ram, error) ||
        !parse_size("page-size", t->page_size, 512, &plan->page_size, error) ||
        !parse_size("stream", t->stream, 0, &plan->stream, error) ||
        !parse_size("rate", t->rate, 0, &o->rate, error) ||
        (t->devices && !parse_devices(t->devices, plan, error)) ||
        !percent("zero", t->zero, &plan->zero_percent, error) ||
        !percent("untouched", t->untouched, &plan->untouched_percent, error) ||
        !percent("dirty", t->dirty, &plan->dirty_percent, error) ||
        !number("rounds", t->rounds, 0, 100000, &plan->rounds, error) ||
        !number("runs", t->runs, 1, 1000, &o->runs, error) ||
        !number("writers", t->writers, 0, 64, &plan->writers, error) ||
        !number("idle", t->idle, 0, 86400, &plan->idle_seconds, error) ||
        !number("wait", t->wait, 0, 86400, &o->wait_seconds, error) ||
        !number("lead", t->lead, 0, 86400, &plan->lead_seconds, error) ||
        !number("serve", t->once ? 1 : t->serve, 0, 1000000, &o->serve, error)) {
        return false;
    }
    if ((plan->page_size & (plan->page_size - 1)) || plan->page_size > 1u << 30) {
        return usage(error, "page-size", t->page_size, "a power of two from 512 to 1G");
    }
    if (plan->zero_percent + plan->untouched_percent > 100) {
        g_set_error(
            error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
            "--zero %u --untouched %u: together they are %u %% of the pages, at most 100 is "
            "allowed",
            plan->zero_percent, plan->untouched_percent,
            plan->zero_percent + plan->untouched_percent);
        return false;
    }
    if (!bench_pattern_parse(t->pattern, &plan->pattern)) {
        return usage(error, "pattern", t->pattern, "sequential, random or hotset");
    }
    plan->seed = (uint64_t)t->seed;
    plan->verify = t->verify;
    plan->populate = !t->no_populate && !t->untouched;
    o->raw = t->raw;
    o->channels = t->channels ? g_strsplit(t->channels, ",", -1) : NULL;
    o->registrations = t->registration ? g_strsplit(t->registration, ",", -1) : NULL;
    o->workers = t->workers ? g_strsplit(t->workers, ",", -1) : NULL;
    o->device_ways = t->ways ? g_strsplit(t->ways, ",", -1) : NULL;
    return true;
}

static void free_texts(Texts *t)
{
    g_free(t->ram);
    g_free(t->page_size);
    g_free(t->stream);
    g_free(t->devices);
    g_free(t->pattern);
    g_free(t->channels);
    g_free(t->registration);
    g_free(t->workers);
    g_free(t->ways);
    g_free(t->rate);
}

bool bench_options_parse(int *argc, char ***argv, BenchOptions *o, GError **error)
{
    Texts t = {
        .ram = g_strdup("256M"),
        .page_size = g_strdup("4096"),
        .stream = g_strdup("0"),
        .pattern = g_strdup("random"),
        .rate = g_strdup("0"),
        .dirty = 10,
        .runs = 1,
        .wait = 600,
        .seed = 1,
    };
    const GOptionEntry entries[] = {
        {"listen", 'l', 0, G_OPTION_ARG_STRING, &o->listen, "Be the destination on URI", "URI"},
        {"once", 0, 0, G_OPTION_ARG_NONE, &t.once, "Destination: end after one run", NULL},
        {"serve", 0, 0, G_OPTION_ARG_INT, &t.serve, "Destination: end after N runs (0: never)",
         "N"},
        {"ram", 'm', 0, G_OPTION_ARG_STRING, &t.ram, "Guest RAM (256M)", "SIZE"},
        {"page-size", 0, 0, G_OPTION_ARG_STRING, &t.page_size, "Guest page (4096)", "SIZE"},
        {"channels", 'c', 0, G_OPTION_ARG_STRING, &t.channels, "Channels, a list sweeps", "N,..."},
        {"registration", 0, 0, G_OPTION_ARG_STRING, &t.registration,
         "Registration modes, a list sweeps", "MODE,..."},
        {"pattern", 0, 0, G_OPTION_ARG_STRING, &t.pattern,
         "How pages get dirty: sequential, random (default), hotset", "PATTERN"},
        {"dirty", 0, 0, G_OPTION_ARG_INT, &t.dirty, "Pages dirtied in a round (10)", "PERCENT"},
        {"rounds", 0, 0, G_OPTION_ARG_INT, &t.rounds, "Rounds after the first (0)", "N"},
        {"zero", 0, 0, G_OPTION_ARG_INT, &t.zero, "Pages that are zero (0)", "PERCENT"},
        {"untouched", 0, 0, G_OPTION_ARG_INT, &t.untouched, "Pages never touched (0)", "PERCENT"},
        {"writers", 0, 0, G_OPTION_ARG_INT, &t.writers, "Threads that write meanwhile (0)", "N"},
        {"idle", 0, 0, G_OPTION_ARG_INT, &t.idle, "Leave the session idle first (0)", "SECONDS"},
        {"lead", 0, 0, G_OPTION_ARG_INT, &t.lead,
         "Let the destination wait first, as one that was started early (0)", "SECONDS"},
        {"wait", 0, 0, G_OPTION_ARG_INT, &t.wait,
         "Wait so long for a destination that is busy with another run (600)", "SECONDS"},
        {"devices", 0, 0, G_OPTION_ARG_STRING, &t.devices,
         "Device state at the end, and how long a device, or so many of them, take to load",
         "NxSIZE[,job-delay=Nms[,slow=N]]"},
        {"device-ways", 0, 0, G_OPTION_ARG_STRING, &t.ways,
         "How it goes: channels, stream, or both in turn", "WAY[,WAY]"},
        {"device-workers", 0, 0, G_OPTION_ARG_STRING, &t.workers,
         "Save jobs at a time; a list sweeps", "N[,N...]"},
        {"stream", 0, 0, G_OPTION_ARG_STRING, &t.stream, "Stream bytes at the end (0)", "SIZE"},
        {"rate", 0, 0, G_OPTION_ARG_STRING, &t.rate, "Bytes per second at most (0: no limit)",
         "SIZE"},
        {"runs", 'n', 0, G_OPTION_ARG_INT, &t.runs, "Runs of each combination (1)", "N"},
        {"seed", 0, 0, G_OPTION_ARG_INT64, &t.seed, "Start of the random numbers (1)", "N"},
        {"verify", 0, 0, G_OPTION_ARG_NONE, &t.verify, "Compare both sides' RAM by a hash", NULL},
        {"no-populate", 0, 0, G_OPTION_ARG_NONE, &t.no_populate,
         "Do not make the RAM resident before", NULL},
        {"raw", 0, 0, G_OPTION_ARG_NONE, &t.raw, "Measure plain writes in the same session", NULL},
        {"vs", 0, 0, G_OPTION_ARG_STRING, &o->vs, "Run a second transport alternately", "URI"},
        {"json", 0, 0, G_OPTION_ARG_STRING, &o->json, "Write the result there (-: stdout)", "FILE"},
        {"plot", 0, 0, G_OPTION_ARG_STRING, &o->plot, "Draw throughput by channels",
         "FILE.svg|png"},
        {"progress", 0, 0, G_OPTION_ARG_STRING, &o->progress, "auto, bar, lines or none", "HOW"},
        {0},
    };
    g_autoptr(GOptionContext) context =
        g_option_context_new("[URI] - measure migrations over a transport");
    bool ok;

    g_option_context_set_summary(
        context, "On the destination:  vmferry bench --listen rdma::4444\n"
                 "On the source:       vmferry bench rdma:HOST:4444 --ram 1G --channels 1,4 --raw");
    g_option_context_add_main_entries(context, entries, NULL);
    ok = g_option_context_parse(context, argc, argv, error);
    if (ok && *argc > 1) {
        o->uri = g_strdup((*argv)[1]);
    }
    if (ok && (*argc > 2 || !o->uri == !o->listen)) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED,
                    "give either one URI to connect to, or --listen URI");
        ok = false;
    }
    ok = ok && check(&t, o, error);
    free_texts(&t);
    return ok;
}

void bench_options_clear(BenchOptions *o)
{
    g_free(o->listen);
    g_free(o->uri);
    g_free(o->vs);
    g_strfreev(o->channels);
    g_strfreev(o->registrations);
    g_strfreev(o->workers);
    g_strfreev(o->device_ways);
    g_free(o->json);
    g_free(o->plot);
    g_free(o->progress);
}
