/* SPDX-License-Identifier: BSD-2-Clause */
/* fd-wait.h -- waiting for a descriptor with a deadline and a way out */

#ifndef VMF_FD_WAIT_H
#define VMF_FD_WAIT_H

#include <stdbool.h>
#include <glib.h>

/*
 * Waits for poll(2)'s `events' on fd. Returns false with *error, whose text begins with `what':
 * VMF_ERROR_TIMEOUT at the deadline, VMF_ERROR_CANCELLED when cancel_fd (-1: none) is readable, or
 * VMF_ERROR_IO. The deadline is of g_get_monotonic_time(); G_MAXINT64 is none. An event that is
 * there already is found even after the deadline. Any thread.
 */
bool fd_wait(int fd, short events, int cancel_fd, gint64 deadline, const char *what,
             GError **error);

#endif
