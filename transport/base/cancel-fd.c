/* SPDX-License-Identifier: BSD-2-Clause */
/* cancel-fd.c -- the descriptor of a GCancellable, without an abort if there is none left */

#include "cancel-fd.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Free descriptors that must be there, because other threads open some at the same time. */
#define SPARE 16

static bool some_are_left(void)
{
    int fds[SPARE];
    unsigned count = 0;
    int code;

    while (count < SPARE && (fds[count] = eventfd(0, EFD_CLOEXEC)) >= 0) {
        count++;
    }
    code = errno;
    for (unsigned i = 0; i < count; i++) {
        close(fds[i]);
    }
    errno = code;
    return count == SPARE;
}

int cancel_fd_get(GCancellable *cancellable)
{
    return some_are_left() ? g_cancellable_get_fd(cancellable) : -1;
}
