/* SPDX-License-Identifier: BSD-2-Clause */
/* say.h -- standard output that can fail: a full disk, a reader that is gone */

#ifndef VMF_SAY_H
#define VMF_SAY_H

#include <stdbool.h>
#include <glib.h>

/*
 * To be called first: a closed standard descriptor would be given to the next file that
 * is opened, which would then get what is said; and a reader that is gone is an
 * error, and not the end of the process.
 */
void say_init(void);
/* Whether all that was said, by this or g_print(), has gone out. */
bool say(const char *format, ...) G_GNUC_PRINTF(1, 2);
bool say_check(GError **error);

#endif
