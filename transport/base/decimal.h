/* SPDX-License-Identifier: BSD-2-Clause */
/* decimal.h -- reading a number in digits, in any thread */

#ifndef VMF_DECIMAL_H
#define VMF_DECIMAL_H

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Reads digits at the beginning of a text; *end is what follows them. False if there are none, or
 * if the number does not fit.
 *
 * Any errno but ERANGE means nothing. g_ascii_strtoull() makes its locale once. A thread that
 * waits for another to make it comes back with the errno of that wait and the right number.
 * g_ascii_string_to_unsigned() calls such a text no number, so that it is not used here.
 */
static inline bool decimal_read(const char *text, char **end, uint64_t *number)
{
    errno = 0;
    *number = g_ascii_strtoull(text, end, 10);
    return g_ascii_isdigit(*text) && !(*number == G_MAXUINT64 && errno == ERANGE);
}

/* Reads a text that is a number from 0 to `most', and nothing else. */
static inline bool decimal_is(const char *text, uint64_t most, uint64_t *number)
{
    char *end;

    return decimal_read(text, &end, number) && !*end && *number <= most;
}

#endif
