/* SPDX-License-Identifier: BSD-2-Clause */
/* say.h -- standard output that may fail: the disk is full, or its reader is gone */

#ifndef VMF_SAY_H
#define VMF_SAY_H

#include <stdbool.h>
#include <glib.h>

/*
 * Call it first. If a standard descriptor were closed, the next file would get its number, and then
 * the output. A reader that is gone becomes an error, and does not end the process.
 */
void say_init(void);
/* Prints. Returns whether all output of say() and g_print() was written. */
bool say(const char *format, ...) G_GNUC_PRINTF(1, 2);
bool say_check(GError **error);

#endif
