/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-control.c -- the control socket: framed messages, never blocking */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fault.h"
#include "tcp.h"

static VmfControlResult lost(const TcpConn *conn, int err, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the connection to %s was lost: %s",
                conn->base.peer, g_strerror(err));
    return VMF_CONTROL_ERROR;
}

void tcp_frame_encode(size_t size, uint8_t out[TCP_FRAME_BYTES])
{
    for (unsigned i = 0; i < TCP_FRAME_BYTES; i++) {
        out[i] = (uint8_t)(size >> (24 - 8 * i));
    }
}

/* Sends what is left of a message. */
static VmfControlResult flush_out(TcpConn *conn, GError **error)
{
    while (conn->out_start < conn->out_end) {
        ssize_t n = VMF_FAULT("send control") ? (errno = EPIPE, -1)
                                              : send(conn->control_fd, conn->out + conn->out_start,
                                                     conn->out_end - conn->out_start, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            return VMF_CONTROL_AGAIN;
        }
        if (n < 0 && errno != EINTR) {
            return lost(conn, errno, error);
        }
        conn->out_start += n > 0 ? (size_t)n : 0;
    }
    return VMF_CONTROL_DONE;
}

VmfControlResult tcp_control_send(VmfConn *base, const struct iovec *iov, unsigned iovcnt,
                                  GError **error)
{
    TcpConn *conn = tcp_conn(base);
    VmfControlResult result = flush_out(conn, error);
    size_t size = 0;

    if (result != VMF_CONTROL_DONE) {
        return result;
    }
    for (unsigned i = 0; i < iovcnt; i++) {
        g_assert(size + iov[i].iov_len <= TCP_CONTROL_MAX);
        memcpy(conn->out + 4 + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    tcp_frame_encode(size, conn->out);
    conn->out_start = 0;
    conn->out_end = 4 + size;
    /*
     * The message is taken, even if the kernel has room for a part only: the rest goes first next
     * time.
     */
    return flush_out(conn, error) == VMF_CONTROL_ERROR ? VMF_CONTROL_ERROR : VMF_CONTROL_DONE;
}

/*
 * Always false. The first bytes are no message, because another program listens there, such as a
 * web server.
 */
static bool is_stranger(const TcpConn *conn, const uint8_t *at, GError **error)
{
    char text[5] = {0};

    for (unsigned i = 0; i < 4; i++) {
        text[i] = g_ascii_isprint(at[i]) ? (char)at[i] : '.';
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                "the program that listens at %s is not vmferry: its answer begins with \"%s\"; "
                "check that the "
                "URI has the destination's address and port",
                conn->base.peer, text);
    return false;
}

/* Takes a whole message off the front of what was read. *message is NULL if there is none. */
static bool next_message(TcpConn *conn, const uint8_t **message, size_t *size, GError **error)
{
    const uint8_t *at = conn->in + conn->in_start;
    size_t have = conn->in_end - conn->in_start, length;

    *message = NULL;
    if (have < 4) {
        return true;
    }
    length = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
    if (length > TCP_CONTROL_MAX && !conn->heard) {
        return is_stranger(conn, at, error);
    }
    if (length > TCP_CONTROL_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "a control message of %zu bytes; at most %u are allowed", length,
                    TCP_CONTROL_MAX);
        return false;
    }
    if (have - 4 >= length) {
        *message = at + 4;
        *size = length;
        conn->heard = true;
        conn->in_start += 4 + length;
    }
    return true;
}

VmfControlResult tcp_control_receive(VmfConn *base, const uint8_t **message, size_t *size,
                                     GError **error)
{
    TcpConn *conn = tcp_conn(base);
    const size_t room = 2 * (4 + TCP_CONTROL_MAX);

    for (;;) {
        ssize_t n;

        if (!next_message(conn, message, size, error)) {
            return VMF_CONTROL_ERROR;
        }
        if (*message) {
            return VMF_CONTROL_DONE;
        }
        if (conn->in_start) {
            memmove(conn->in, conn->in + conn->in_start, conn->in_end - conn->in_start);
            conn->in_end -= conn->in_start;
            conn->in_start = 0;
        }
        n = VMF_FAULT("recv control")
                ? (errno = ECONNRESET, -1)
                : recv(conn->control_fd, conn->in + conn->in_end, room - conn->in_end, 0);
        if (n == 0) {
            return VMF_CONTROL_EOF;
        }
        if (n < 0 && errno == EAGAIN) {
            return VMF_CONTROL_AGAIN;
        }
        if (n < 0 && errno != EINTR) {
            return lost(conn, errno, error);
        }
        conn->in_end += n > 0 ? (size_t)n : 0;
    }
}

bool tcp_control_wait(VmfConn *base, int wake_fd, bool want_send, int timeout_ms, GError **error)
{
    TcpConn *conn = tcp_conn(base);
    bool pending = conn->out_start < conn->out_end;
    struct pollfd fds[] = {
        {.fd = conn->control_fd, .events = (short)(POLLIN | (want_send || pending ? POLLOUT : 0))},
        {.fd = wake_fd, .events = POLLIN},
    };

    if (poll(fds, G_N_ELEMENTS(fds), timeout_ms) < 0 && errno != EINTR) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "waiting on the control connection");
        return false;
    }
    return !pending || !(fds[0].revents & POLLOUT) || flush_out(conn, error) != VMF_CONTROL_ERROR;
}
