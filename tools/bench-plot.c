/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-plot.c -- throughput by channels, drawn by gnuplot */

#include <string.h>

#include "bench.h"

static bool same_line(const BenchRow *a, const BenchRow *b)
{
    return g_str_equal(a->uri, b->uri) && g_str_equal(a->stats.registration, b->stats.registration);
}

/* Whether a row is the first of its line: one line for each URI and registration. */
static bool begins_line(const BenchRow *rows, unsigned at)
{
    for (unsigned i = 0; i < at; i++) {
        if (same_line(&rows[i], &rows[at])) {
            return false;
        }
    }
    return true;
}

static void add_points(GString *script, const BenchRow *rows, unsigned count, const BenchRow *line)
{
    for (unsigned i = 0; i < count; i++) {
        char number[G_ASCII_DTOSTR_BUF_SIZE];

        if (same_line(&rows[i], line) && rows[i].seconds > 0) {
            g_ascii_dtostr(number, sizeof(number),
                           (double)rows[i].stats.ram_bytes / rows[i].seconds / (1 << 20));
            g_string_append_printf(script, "%u %s\n", rows[i].stats.channels, number);
        }
    }
    g_string_append(script, "e\n");
}

/* A text for gnuplot, in single quotes. */
static char *quoted(const char *text)
{
    g_auto(GStrv) pieces = g_strsplit(text, "'", -1);
    g_autofree char *joined = g_strjoinv("''", pieces);

    return g_strdup_printf("'%s'", joined);
}

bool bench_plot(const char *file, const BenchRow *rows, unsigned count, GError **error)
{
    g_autoptr(GString) script = g_string_new(NULL);
    g_autoptr(GSubprocess) gnuplot = NULL;
    g_autofree char *output = quoted(file);
    const char *comma = "plot ";

    if (!g_str_has_suffix(file, ".svg") && !g_str_has_suffix(file, ".png")) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "--plot %s: the name ends in .svg or .png",
                    file);
        return false;
    }
    g_string_append_printf(
        script,
        "set terminal %s size 900,600\nset output %s\n"
        "set xlabel 'channels'\nset ylabel 'guest RAM, MiB/s'\n"
        "set yrange [0:*]\nset xtics 1\nset grid\nset key outside bottom noenhanced\n",
        g_str_has_suffix(file, ".svg") ? "svg" : "pngcairo", output);
    for (unsigned i = 0; i < count; i++) {
        if (begins_line(rows, i)) {
            g_autofree char *name =
                g_strdup_printf("%s (%s)", rows[i].uri, rows[i].stats.registration);
            g_autofree char *title = quoted(name);

            g_string_append_printf(
                script, "%s'-' with linespoints linewidth 2 pointtype 7 title %s", comma, title);
            comma = ", ";
        }
    }
    g_string_append_c(script, '\n');
    for (unsigned i = 0; i < count; i++) {
        if (begins_line(rows, i)) {
            add_points(script, rows, count, &rows[i]);
        }
    }
    gnuplot = g_subprocess_new(G_SUBPROCESS_FLAGS_STDIN_PIPE, error, "gnuplot", NULL);
    if (!gnuplot) {
        g_prefix_error(error, "--plot needs gnuplot (package gnuplot-nox): ");
        return false;
    }
    return g_subprocess_communicate_utf8(gnuplot, script->str, NULL, NULL, NULL, error) &&
           g_subprocess_wait_check(gnuplot, NULL, error);
}
