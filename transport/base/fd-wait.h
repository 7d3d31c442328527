/* SPDX-License-Identifier: BSD-2-Clause */
/* fd-wait.h -- waiting for a descriptor with a deadline and a way out */

#ifndef VMF_FD_WAIT_H
#define VMF_FD_WAIT_H

#include <stdbool.h>
#include <glib.h>

/*
 * Waits for poll(2)'s `events' on fd. False with *error, whose text begins with `what':
 * VMF_ERROR_TIMEOUT at the deadline (of g_get_monotonic_time; G_MAXINT64: none),
 * VMF_ERROR_CANCELLED when cancel_fd (-1: none) is readable, VMF_ERROR_IO. What has come
 * already is found even when the deadline is in the past.
 */
bool fd_wait(int fd, short events, int cancel_fd, gint64 deadline, const char *what,
             GError **error);

#endif
