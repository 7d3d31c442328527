/* SPDX-License-Identifier: BSD-2-Clause */
/* progress.c -- progress on the terminal */

#include "progress.h"

#include <string.h>
#include <unistd.h>

#define SHOW_EVERY_US (G_USEC_PER_SEC / 5)

bool progress_parse(const char *option, ProgressHow *how, GError **error)
{
    static const struct {
        const char *name;
        ProgressHow how;
    } ways[] = {{"bar", PROGRESS_BAR_SHOWN}, {"lines", PROGRESS_LINES}, {"none", PROGRESS_NONE}};

    if (!option || g_str_equal(option, "auto")) {
        *how = isatty(STDERR_FILENO) ? PROGRESS_BAR_SHOWN : PROGRESS_NONE;
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        if (g_str_equal(option, ways[i].name)) {
            *how = ways[i].how;
            return true;
        }
    }
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "--progress %s: allowed is auto, bar, lines or none", option);
    return false;
}

void progress_bar(double percent, char bar[PROGRESS_BAR])
{
    const size_t cells = PROGRESS_BAR - 1;

    memset(bar, '.', cells);
    memset(bar, '#', MIN((size_t)(percent * (double)cells / 100), cells));
    bar[cells] = '\0';
}

void progress_begin(Progress *progress, ProgressHow how, const char *what, uint64_t total)
{
    *progress =
        (Progress){.how = how, .what = what, .total = total, .began = g_get_monotonic_time()};
}

void progress_show(Progress *progress, uint64_t done)
{
    int64_t now = g_get_monotonic_time();
    double percent = progress->total ? 100.0 * (double)done / (double)progress->total : 100.0;
    double seconds = (double)(now - progress->began) / G_USEC_PER_SEC;
    char bar[PROGRESS_BAR];

    if (progress->how == PROGRESS_NONE || now - progress->shown < SHOW_EVERY_US) {
        return;
    }
    progress->shown = now;
    progress_bar(percent, bar);
    g_printerr(
        "%s%s [%s] %3.0f %%  %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB  %.0f MiB/s%s",
        progress->how == PROGRESS_BAR_SHOWN ? "\r\033[K" : "", progress->what, bar, percent,
        done >> 20, progress->total >> 20, seconds > 0 ? (double)done / (1 << 20) / seconds : 0,
        progress->how == PROGRESS_BAR_SHOWN ? "" : "\n");
}

void progress_end(Progress *progress)
{
    if (progress->how == PROGRESS_BAR_SHOWN && progress->shown) {
        g_printerr("\r\033[K");
    }
}
