/* SPDX-License-Identifier: BSD-2-Clause */
/* fd-wait.c -- waiting for a descriptor with a deadline and a way out */

#include "fd-wait.h"

#include <errno.h>
#include <poll.h>
#include <vmferry/error.h>

static int left_ms(gint64 deadline)
{
    const gint64 left_us = deadline - g_get_monotonic_time();

    if (deadline == G_MAXINT64) {
        return -1;
    }
    return left_us <= 0 ? 0 : (int)MIN(left_us / 1000 + 1, G_MAXINT);
}

bool fd_wait(int fd, short events, int cancel_fd, gint64 deadline, const char *what, GError **error)
{
    struct pollfd fds[] = {{.fd = fd, .events = events}, {.fd = cancel_fd, .events = POLLIN}};

    for (;;) {
        const int timeout_ms = left_ms(deadline);
        const int n = poll(fds, G_N_ELEMENTS(fds), timeout_ms);

        if (n < 0 && errno != EINTR) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "%s: %s", what, g_strerror(errno));
            return false;
        }
        if (n > 0 && fds[1].revents) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "%s: cancelled", what);
            return false;
        }
        if (n > 0 && fds[0].revents) {
            return true;
        }
        if (timeout_ms == 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "%s: no answer in time", what);
            return false;
        }
    }
}
