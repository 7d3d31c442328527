/* SPDX-License-Identifier: BSD-2-Clause */
/* progress.h -- progress on the terminal */

#ifndef VMF_PROGRESS_H
#define VMF_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef enum { PROGRESS_NONE, PROGRESS_BAR_SHOWN, PROGRESS_LINES } ProgressHow;

/*
 * Takes the text of --progress: "auto" (or NULL), "bar", "lines" or "none". Any other is an error.
 */
bool progress_parse(const char *option, ProgressHow *how, GError **error);

/* The bytes of a bar as text, with its NUL. */
#define PROGRESS_BAR 21
void progress_bar(double percent, char bar[PROGRESS_BAR]);

/* Shows the bytes of a work that is done once, at most five times a second. */
typedef struct Progress {
    ProgressHow how;
    const char *what; /* "RAM to the file" */
    uint64_t total;
    int64_t began, shown;
} Progress;

void progress_begin(Progress *progress, ProgressHow how, const char *what, uint64_t total);
void progress_show(Progress *progress, uint64_t done);
void progress_end(Progress *progress);

#endif
