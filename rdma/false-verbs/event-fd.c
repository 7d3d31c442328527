/* SPDX-License-Identifier: BSD-2-Clause */
/* event-fd.c -- a descriptor that is readable while somebody's queue of events is not empty */

#include "event-fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/fault.h"

int event_fd_new(void)
{
    if (VMF_FAULT("eventfd")) {
        errno = EMFILE;
        return -1;
    }
    return eventfd(0, EFD_CLOEXEC);
}

void event_fd_raise(int fd)
{
    (void)eventfd_write(fd, 1);
}

void event_fd_lower(int fd)
{
    eventfd_t count;

    /* It was raised, so that this does not block. */
    (void)eventfd_read(fd, &count);
}

bool event_fd_wait(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0) {
        return false;
    }
    if (flags & O_NONBLOCK) {
        errno = EAGAIN;
        return false;
    }
    while (poll(&poll_fd, 1, -1) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    if (poll_fd.revents & POLLNVAL) {
        errno = EBADF;
        return false;
    }
    return true;
}
