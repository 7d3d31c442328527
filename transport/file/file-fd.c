/* SPDX-License-Identifier: BSD-2-Clause */
/* file-fd.c -- migration files over a file descriptor */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "file-state.h"

#define PIECES_MAX 8

typedef struct FdStream {
    int fd;
    int fd_flags; /* as they were; restored by close */
    bool is_socket;
    int wake;    /* eventfd: stays readable after shut_down */
    int watched; /* epoll over fd and wake, for event loops; -1: not needed */
    int down;    /* atomic: shut_down was called */
} FdStream;

static bool was_shut_down(FdStream *stream, GError **error)
{
    if (!__atomic_load_n(&stream->down, __ATOMIC_ACQUIRE)) {
        return false;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "the file was shut down");
    return true;
}

static void failed_call(const FdStream *stream, const char *what, GError **error)
{
    int code = errno;

    if (code == EPIPE || code == ECONNRESET) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                    "%s descriptor %d: the other end was closed (%s)", what, stream->fd,
                    g_strerror(code));
    } else {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "%s descriptor %d: %s", what, stream->fd,
                    g_strerror(code));
    }
}

/*
 * Sleeps until the descriptor has `events', or the file is shut down. The file's owner sets the
 * deadline.
 */
static bool wait_for(FdStream *stream, short events, GError **error)
{
    struct pollfd fds[2] = {{.fd = stream->fd, .events = events},
                            {.fd = stream->wake, .events = POLLIN}};
    int n;

    do {
        n = VMF_FAULT("poll") ? (errno = ENOMEM, -1) : poll(fds, 2, -1);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        failed_call(stream, "waiting for", error);
        return false;
    }
    return !was_shut_down(stream, error);
}

/* --- writing --- */

/*
 * A pipe without a reader must give an error, and not end the VMM. Pipes have no MSG_NOSIGNAL. So
 * SIGPIPE is blocked, and taken away if this write has raised it.
 */
static ssize_t write_without_signal(int fd, const struct iovec *iov, int count)
{
    sigset_t sigpipe, pending, before;
    ssize_t n;

    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    n = writev(fd, iov, count);
    if (n < 0 && errno == EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec at_once = {0};

        while (sigtimedwait(&sigpipe, NULL, &at_once) < 0 && errno == EINTR) {
        }
        errno = EPIPE;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

static ssize_t write_some(FdStream *stream, struct iovec *iov, unsigned count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};

    if (VMF_FAULT("writev")) {
        errno = EIO;
        return -1;
    }
    return stream->is_socket ? sendmsg(stream->fd, &message, MSG_NOSIGNAL)
                             : write_without_signal(stream->fd, iov, (int)count);
}

static bool fd_put(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                   unsigned flags, GError **error)
{
    FdStream *stream = opaque;
    struct iovec pieces[PIECES_MAX];
    struct iovec *left = pieces;

    (void)position;
    (void)flags;
    g_assert(iovcnt <= PIECES_MAX);
    memcpy(pieces, iov, iovcnt * sizeof(*iov));
    while (iovcnt) {
        ssize_t n;

        if (was_shut_down(stream, error)) {
            return false;
        }
        n = write_some(stream, left, iovcnt);
        if (n < 0 && errno == EAGAIN) {
            if (!wait_for(stream, POLLOUT, error)) {
                return false;
            }
        } else if (n < 0 && errno != EINTR) {
            failed_call(stream, "writing to", error);
            return false;
        }
        for (size_t done = n > 0 ? (size_t)n : 0; iovcnt;) {
            size_t part = MIN(done, left->iov_len);

            left->iov_base = (uint8_t *)left->iov_base + part;
            left->iov_len -= part;
            done -= part;
            if (left->iov_len) {
                break;
            }
            left++;
            iovcnt--;
        }
    }
    return true;
}

/* --- reading --- */

static ssize_t read_some(FdStream *stream, void *buffer, size_t size)
{
    ssize_t n;

    do {
        n = VMF_FAULT("read") ? (errno = EIO, -1) : read(stream->fd, buffer, size);
    } while (n < 0 && errno == EINTR);
    return n;
}

static ssize_t fd_get(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                      GError **error)
{
    FdStream *stream = opaque;

    (void)position;
    for (;;) {
        ssize_t n;

        if (was_shut_down(stream, error)) {
            return VMF_IO_ERROR;
        }
        n = read_some(stream, buffer, size);
        if (n >= 0) {
            return n;
        }
        if (errno != EAGAIN) {
            failed_call(stream, "reading from", error);
            return VMF_IO_ERROR;
        }
        if (!blocking) {
            return VMF_IO_WOULD_BLOCK;
        }
        if (!wait_for(stream, POLLIN, error)) {
            return VMF_IO_ERROR;
        }
    }
}

static int fd_get_fd(void *opaque)
{
    FdStream *stream = opaque;

    /* epoll cannot watch a disk file, which is always readable. */
    return stream->watched >= 0 ? stream->watched : stream->fd;
}

/* --- life --- */

static void fd_shut_down(void *opaque)
{
    FdStream *stream = opaque;
    uint64_t one = 1;

    __atomic_store_n(&stream->down, 1, __ATOMIC_RELEASE);
    (void)!write(stream->wake, &one, sizeof(one));
}

/* Frees all but the descriptor itself. */
static void stream_free(FdStream *stream)
{
    if (stream->wake >= 0) {
        close(stream->wake);
    }
    if (stream->watched >= 0) {
        close(stream->watched);
    }
    g_free(stream);
}

static bool fd_close(void *opaque, GError **error)
{
    FdStream *stream = opaque;
    bool ok;

    /* Other processes may have the same open file, such as a terminal, and expect it to block. */
    (void)fcntl(stream->fd, F_SETFL, stream->fd_flags);
    /* On Linux the descriptor is closed after EINTR, too. */
    ok = close(stream->fd) == 0 || errno == EINTR;
    if (!ok) {
        failed_call(stream, "closing", error);
    }
    stream_free(stream);
    return ok;
}

static const VmfFileOps writer_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = fd_put,
    .close = fd_close,
    .shut_down = fd_shut_down,
};

static const VmfFileOps reader_ops = {
    .size = sizeof(VmfFileOps),
    .get_buffer = fd_get,
    .close = fd_close,
    .shut_down = fd_shut_down,
    .get_fd = fd_get_fd,
};

static bool watch(FdStream *stream, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    if (VMF_FAULT("epoll_ctl")) {
        errno = ENOMEM;
        return false;
    }
    return epoll_ctl(stream->watched, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool make_watched(FdStream *stream)
{
    stream->watched =
        VMF_FAULT("epoll_create1") ? (errno = EMFILE, -1) : epoll_create1(EPOLL_CLOEXEC);
    return stream->watched >= 0 && watch(stream, stream->fd) && watch(stream, stream->wake);
}

/* Whether the descriptor is open for that mode. */
static bool suits(int fd, int flags, VmfFileMode mode, GError **error)
{
    int access = flags & O_ACCMODE;

    if (access != O_RDWR && access != (mode == VMF_FILE_READ ? O_RDONLY : O_WRONLY)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_DIRECTION, "descriptor %d is not open for %s", fd,
                    mode == VMF_FILE_READ ? "reading" : "writing");
        return false;
    }
    return true;
}

static bool prepare(FdStream *stream, VmfFileMode mode, GError **error)
{
    struct stat status;

    if (fstat(stream->fd, &status) < 0 || (stream->fd_flags = fcntl(stream->fd, F_GETFL)) < 0) {
        failed_call(stream, "looking at", error);
        return false;
    }
    if (!suits(stream->fd, stream->fd_flags, mode, error)) {
        return false;
    }
    stream->is_socket = S_ISSOCK(status.st_mode);
    stream->wake =
        VMF_FAULT("eventfd") ? (errno = EMFILE, -1) : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stream->wake < 0 ||
        (mode == VMF_FILE_READ && !S_ISREG(status.st_mode) && !make_watched(stream)) ||
        fcntl(stream->fd, F_SETFL, stream->fd_flags | O_NONBLOCK) < 0) {
        failed_call(stream, "preparing", error);
        return false;
    }
    return true;
}

VmfFile *vmf_file_new_fd(int fd, VmfFileMode mode, GError **error)
{
    FdStream *stream = g_new0(FdStream, 1);
    VmfFile *file = NULL;

    *stream = (FdStream){.fd = fd, .wake = -1, .watched = -1};
    if (prepare(stream, mode, error)) {
        file = vmf_file_new(mode == VMF_FILE_READ ? &reader_ops : &writer_ops, stream, mode, error);
    }
    if (!file) {
        stream_free(stream);
    }
    return file;
}
