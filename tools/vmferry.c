/* SPDX-License-Identifier: BSD-2-Clause */
/* vmferry.c -- the command: subcommands, help, exit status */

#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <vmferry/plugin/transport.h>

#include "bench.h"
#include "commands.h"
#include "say.h"

/* vmferry(1) documents them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNKNOWN_OUTCOME = 4 };

static int report(const GError *error)
{
    g_printerr("vmferry: %s\n", error->message);
    if (error->domain == G_OPTION_ERROR) {
        g_printerr("Try \"vmferry help\".\n");
        return EXIT_USAGE;
    }
    if (g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID)) {
        return EXIT_USAGE;
    }
    return g_error_matches(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME) ? EXIT_UNKNOWN_OUTCOME
                                                                        : EXIT_FAILED;
}

/* --- bench --- */

static bool has_option(const VmfUri *uri, const char *name)
{
    const VmfTransport *t = vmf_transport_find(vmf_uri_scheme(uri), NULL);

    for (const VmfOptionSpec *spec = t ? t->options : NULL; spec && spec->name; spec++) {
        if (g_str_equal(spec->name, name)) {
            return true;
        }
    }
    return false;
}

/* A scheme without registration, such as tcp:, runs once beside one with it. */
static bool set_registration(VmfUri *uri, const char *value, GError **error)
{
    return !has_option(uri, "registration") || vmf_uri_set(uri, "registration", value, error);
}

/* The values of one row of a sweep; NULL: no value is set. */
typedef struct Choice {
    const char *channels, *registration, *workers, *way;
} Choice;

static bool apply(const Choice *choice, VmfUri *uri, BenchPlan *plan, GError **error)
{
    if (choice->way && !g_str_equal(choice->way, "stream") &&
        !g_str_equal(choice->way, "channels")) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "--device-ways %s: channels, stream, or both", choice->way);
        return false;
    }
    plan->devices_by_stream = choice->way && g_str_equal(choice->way, "stream");
    return (!choice->channels || vmf_uri_set(uri, "channels", choice->channels, error)) &&
           (!choice->workers || vmf_uri_set(uri, "device-workers", choice->workers, error)) &&
           (!choice->registration || set_registration(uri, choice->registration, error));
}

static bool run_one(const BenchOptions *o, const char *text, const Choice *choice, unsigned run,
                    GArray *rows, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    BenchPlan plan = o->plan;
    BenchRow row = {.uri = text, .run = run};

    if (!uri || !apply(choice, uri, &plan, error)) {
        return false;
    }
    plan.seed += run;
    row.workers = (unsigned)vmf_uri_get_uint(uri, "device-workers"); /* 0: one for each device */
    row.workers = row.workers ? row.workers : plan.devices;
    row.devices_by_stream = plan.devices_by_stream;
    if (!bench_run(uri, o, &plan, &row, error)) {
        return false;
    }
    g_array_append_val(rows, row);
    return true;
}

/* Runs the two URIs in turn, so that a drift of the machine affects both. */
static bool run_both(const BenchOptions *o, const Choice *choice, unsigned run, GArray *rows,
                     GError **error)
{
    return run_one(o, o->uri, choice, run, rows, error) &&
           (!o->vs || run_one(o, o->vs, choice, run, rows, error));
}

/* Runs every combination of the lists from the i-th on. */
static bool sweep_lists(const BenchOptions *o, Choice *choice, unsigned i, unsigned run,
                        GArray *rows, GError **error)
{
    char *const *lists[] = {o->registrations, o->channels, o->workers, o->device_ways};
    const char **chosen[] = {&choice->registration, &choice->channels, &choice->workers,
                             &choice->way};

    if (i == G_N_ELEMENTS(lists)) {
        return run_both(o, choice, run, rows, error);
    }
    if (!lists[i]) {
        return sweep_lists(o, choice, i + 1, run, rows, error);
    }
    for (char *const *value = lists[i]; *value; value++) {
        *chosen[i] = *value;
        if (!sweep_lists(o, choice, i + 1, run, rows, error)) {
            return false;
        }
    }
    return true;
}

static bool sweep(const BenchOptions *o, GArray *rows, GError **error)
{
    for (unsigned run = 1; run <= o->runs; run++) {
        Choice choice = {0};

        if (!sweep_lists(o, &choice, 0, run, rows, error)) {
            return false;
        }
    }
    return true;
}

/* Where the result goes; NULL: nowhere. */
typedef struct Outputs {
    OutputFile *json, *plot;
} Outputs;

static bool to_stdout(const BenchOptions *o)
{
    return o->json && g_str_equal(o->json, "-");
}

/* Opens the outputs before the work, which may take hours, so that a bad name is refused first. */
static bool open_outputs(const BenchOptions *o, Outputs *outputs, GError **error)
{
    if (o->json && !to_stdout(o) && !(outputs->json = output_file_new(o->json, 0666, error))) {
        g_prefix_error(error, "--json: ");
        return false;
    }
    if (!o->plot) {
        return true;
    }
    if (!bench_plot_check(o->plot, error)) {
        return false;
    }
    outputs->plot = output_file_new(o->plot, 0666, error);
    if (!outputs->plot) {
        g_prefix_error(error, "--plot: ");
    }
    return outputs->plot != NULL;
}

static bool report_rows(const BenchOptions *o, const Outputs *outputs, GArray *rows, GError **error)
{
    const BenchRow *row = (const BenchRow *)rows->data;
    const char *pattern = bench_pattern_name(o->plan.pattern);

    if (!to_stdout(o)) {
        bench_print_table(&o->plan, row, rows->len);
    }
    if (o->json && !bench_write_json(outputs->json, o->uri, pattern, row, rows->len, error)) {
        return false;
    }
    if (o->plot && !bench_plot(o->plot, outputs->plot, row, rows->len, error)) {
        return false;
    }
    for (unsigned i = 0; i < rows->len; i++) {
        if (row[i].verified == 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                        "the destination's RAM differs from the source's");
            return false;
        }
    }
    return true;
}

static int bench(int argc, char **argv)
{
    BenchOptions options = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(BenchRow));
    Outputs outputs = {0};
    bool ok = bench_options_parse(&argc, &argv, &options, &error);

    if (ok && options.listen) {
        ok = bench_listen(&options, &error);
    } else if (ok) {
        ok = open_outputs(&options, &outputs, &error) && sweep(&options, rows, &error) &&
             report_rows(&options, &outputs, rows, &error);
    }
    output_file_free(outputs.json);
    output_file_free(outputs.plot);
    bench_options_clear(&options);
    return ok ? EXIT_OK : report(error);
}

/* --- transports --- */

static void print_options(const VmfOptionSpec *specs)
{
    static const char *const types[] = {"on|off", "number", "size", "time", NULL, "text"};

    for (; specs->name; specs++) {
        g_print("  %-16s %-20s default %-8s %s\n", specs->name,
                specs->type == VMF_OPTION_CHOICE ? specs->choices : types[specs->type],
                specs->default_value ? specs->default_value : "-", specs->help);
    }
}

static int transports(int argc, char **argv)
{
    g_auto(GStrv) schemes = vmf_transport_schemes();
    bool rdma = false;

    (void)argv;
    if (argc > 1) {
        g_printerr("vmferry: transports takes no arguments\n");
        return EXIT_USAGE;
    }
    g_print("every transport:\n");
    print_options(vmf_uri_general_options());
    for (char **scheme = schemes; *scheme; scheme++) {
        const VmfTransport *t = vmf_transport_find(*scheme, NULL);

        g_print("%s: %s\n", t->scheme, t->help);
        print_options(t->options);
        rdma = rdma || g_str_equal(*scheme, "rdma");
    }
    if (!rdma) {
        g_autoptr(GError) error = NULL;

        vmf_transport_find("rdma", &error);
        g_print("rdma: not available: %s\n", error ? error->message : "?");
    }
    return EXIT_OK;
}

/* --- receive, send --- */

static int receive_vm(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    return receive_command(argc, argv, &error) ? EXIT_OK : report(error);
}

static int send_vm(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    return send_command(argc, argv, &error) ? EXIT_OK : report(error);
}

/* --- the command --- */

static int help(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
    bool moves_a_vm; /* its exit status says where the VM is, and nothing else */
} commands[] = {
    {"bench", bench, "measure migrations of a synthetic guest (bench --help for its options)"},
    {"receive", receive_vm, "save a VM that a source migrates here to a file", true},
    {"send", send_vm, "migrate a VM from a file to a destination", true},
    {"transports", transports, "list the transports and their URI options"},
    {"help", help, "this text"},
};

static int help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    g_print("vmferry " VMF_VERSION " - move running virtual machines, over RDMA or sockets\n\n"
            "usage: vmferry COMMAND [OPTIONS]\n\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_print("  %-12s %s\n", commands[i].name, commands[i].help);
    }
    g_print("\nExit status: 0 done, 1 failed, 2 wrong usage, 4 the outcome of a hand-over is "
            "unknown.\nMore in vmferry(1).\n");
    return EXIT_OK;
}

/* Returns the status, or EXIT_FAILED if the output could not be written. */
static int said(int status)
{
    g_autoptr(GError) error = NULL;

    return status != EXIT_OK || say_check(&error) ? status : report(error);
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    say_init();
    if (argc >= 2 && (g_str_equal(argv[1], "--version") || g_str_equal(argv[1], "-V"))) {
        g_print("vmferry " VMF_VERSION "\n");
        return said(EXIT_OK);
    }
    if (argc >= 2 && (g_str_equal(argv[1], "--help") || g_str_equal(argv[1], "-h"))) {
        return said(help(argc, argv));
    }
    for (unsigned i = 0; argc >= 2 && i < G_N_ELEMENTS(commands); i++) {
        if (g_str_equal(argv[1], commands[i].name)) {
            int status = commands[i].run(argc - 1, argv + 1);

            return commands[i].moves_a_vm ? status : said(status);
        }
    }
    g_printerr("vmferry: %s%s\nTry \"vmferry help\".\n", argc < 2 ? "no command" : "no command ",
               argc < 2 ? "" : argv[1]);
    return EXIT_USAGE;
}
