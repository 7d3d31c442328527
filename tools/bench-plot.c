/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-plot.c -- throughput by channels, drawn by gnuplot */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static bool same_line(const BenchRow *a, const BenchRow *b)
{
    return g_str_equal(a->uri, b->uri) && g_str_equal(a->stats.registration, b->stats.registration);
}

/* Whether a row begins a line of the plot: there is one for each URI and registration. */
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

        if (same_line(&rows[i], line) && rows[i].ram_seconds > 0) {
            g_ascii_dtostr(number, sizeof(number),
                           (double)rows[i].stats.ram_bytes / rows[i].ram_seconds / (1 << 20));
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

bool bench_plot_check(const char *name, GError **error)
{
    g_autofree char *gnuplot = g_find_program_in_path("gnuplot");

    if (!g_str_has_suffix(name, ".svg") && !g_str_has_suffix(name, ".png")) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "--plot %s: the name ends in .svg or .png",
                    name);
        return false;
    }
    if (!gnuplot) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "--plot needs gnuplot (package gnuplot-nox), which is not installed");
        return false;
    }
    return true;
}

static GString *make_script(const char *name, const BenchRow *rows, unsigned count)
{
    GString *script = g_string_new(NULL);
    const char *comma = "plot ";

    g_string_append_printf(
        script,
        "set terminal %s size 900,600\n"
        "set xlabel 'channels'\nset ylabel 'guest RAM, MiB/s'\n"
        "set yrange [0:*]\nset xtics 1\nset grid\nset key outside bottom noenhanced\n",
        g_str_has_suffix(name, ".svg") ? "svg" : "pngcairo");
    for (unsigned i = 0; i < count; i++) {
        if (begins_line(rows, i)) {
            g_autofree char *line =
                g_strdup_printf("%s (%s)", rows[i].uri, rows[i].stats.registration);
            g_autofree char *title = quoted(line);

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
    return script;
}

/* Makes a file without a name, which is read from its beginning. */
static int script_file(const GString *script, GError **error)
{
    int fd = memfd_create("gnuplot", MFD_CLOEXEC);

    if (fd < 0 || write(fd, script->str, script->len) != (ssize_t)script->len ||
        lseek(fd, 0, SEEK_SET) < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot write gnuplot's script: %s",
                    g_strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/*
 * Runs gnuplot, which writes the picture to its standard output. GSubprocess is not used: it starts
 * a thread of GLib, which ends the process if there are no more threads.
 */
static bool run_gnuplot(int script, int picture, GError **error)
{
    char *arguments[] = {"gnuplot", NULL};
    GPid pid;
    int status;

    if (!g_spawn_async_with_fds(NULL, arguments, NULL,
                                G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                                script, picture, STDERR_FILENO, error)) {
        g_prefix_error(error, "--plot needs gnuplot (package gnuplot-nox): ");
        return false;
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "waiting for gnuplot: %s",
                        g_strerror(errno));
            return false;
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "gnuplot failed");
        return false;
    }
    return true;
}

bool bench_plot(const char *name, OutputFile *file, const BenchRow *rows, unsigned count,
                GError **error)
{
    GString *script = make_script(name, rows, count);
    int fd = script_file(script, error);
    bool ok;

    ok = fd >= 0 && run_gnuplot(fd, output_file_fd(file), error);
    if (fd >= 0) {
        close(fd);
    }
    g_string_free(script, TRUE);
    if (!ok || !output_file_publish(file, error)) {
        g_prefix_error(error, "%s is not drawn: ", name);
        return false;
    }
    output_file_settle(file);
    return true;
}
