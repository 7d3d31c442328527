/* SPDX-License-Identifier: BSD-2-Clause */
/* lazy.c -- memory whose pages a handler of userfaultfd fills when they are first touched */

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "lazy.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* Linux 5.11: needs no privilege */
#endif

#define PAGE 4096u

static void handle(Lazy *lazy, const struct uffd_msg *message, uint8_t page[PAGE])
{
    if (message->event == UFFD_EVENT_PAGEFAULT) {
        struct uffdio_copy copy = {
            .dst = message->arg.pagefault.address & ~(uint64_t)(PAGE - 1),
            .src = (uintptr_t)page,
            .len = PAGE,
            .mode =
                UFFDIO_COPY_MODE_DONTWAKE, /* a thread that waits for the page finds it counted */
        };
        struct uffdio_range waiting = {.start = copy.dst, .len = PAGE};

        /* EEXIST: two threads have touched the page. */
        if (ioctl(lazy->fd, UFFDIO_COPY, &copy) == 0) {
            __atomic_fetch_add(&lazy->filled, 1, __ATOMIC_RELEASE);
        }
        ioctl(lazy->fd, UFFDIO_WAKE, &waiting);
    } else {
        __atomic_fetch_add(&lazy->events, 1, __ATOMIC_RELAXED);
    }
}

static void *lazy_main(void *opaque)
{
    Lazy *lazy = opaque;
    struct pollfd fds[] = {{.fd = lazy->fd, .events = POLLIN},
                           {.fd = lazy->stop_fd, .events = POLLIN}};
    g_autofree uint8_t *page = g_malloc0(PAGE);

    page[0] = LAZY_BYTE;
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        struct uffd_msg message;

        if (fds[1].revents) {
            break;
        }
        if (read(lazy->fd, &message, sizeof(message)) == (ssize_t)sizeof(message)) {
            handle(lazy, &message, page);
        }
    }
    return NULL;
}

void lazy_start(Lazy *lazy, void *memory, uint64_t size, bool remove)
{
    struct uffdio_api api = {.api = UFFD_API, .features = remove ? UFFD_FEATURE_EVENT_REMOVE : 0};
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)memory, .len = size},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    *lazy = (Lazy){.memory = memory, .size = size};
    lazy->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (lazy->fd < 0 || ioctl(lazy->fd, UFFDIO_API, &api) < 0 ||
        ioctl(lazy->fd, UFFDIO_REGISTER, &range) < 0) {
        fail_msg("userfaultfd cannot be used here: %s", strerror(errno));
    }
    lazy->stop_fd = eventfd(0, EFD_CLOEXEC);
    assert_true(lazy->stop_fd >= 0);
    lazy->thread = g_thread_new("lazy", lazy_main, lazy);
}

void lazy_stop(Lazy *lazy)
{
    const uint64_t one = 1;

    assert_int_equal(write(lazy->stop_fd, &one, sizeof(one)), sizeof(one));
    g_thread_join(lazy->thread);
    close(lazy->fd); /* it also ends the registration */
    close(lazy->stop_fd);
}
