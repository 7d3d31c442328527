/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-connect.c -- connecting to a listener, and opening the channels */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "tcp.h"

/* Connects a socket and sends its preamble. */
static int open_socket(const VmfUri *uri, const TcpPreamble *preamble, unsigned timeout_ms,
                       int cancel_fd, GError **error)
{
    gint64 deadline =
        g_get_monotonic_time() + (gint64)vmf_uri_get_uint(uri, "connect-timeout") * 1000;
    uint8_t bytes[TCP_PREAMBLE_BYTES];
    int fd = tcp_connect_socket(uri, deadline, cancel_fd, error);

    if (fd < 0) {
        return -1;
    }
    tcp_preamble_encode(preamble, bytes);
    if (!tcp_prepare(fd, timeout_ms, error)) {
        close(fd);
        return -1;
    }
    /* An empty socket always has room for its first bytes. */
    if (VMF_FAULT("send preamble")
            ? (errno = EPIPE, true)
            : send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != (ssize_t)sizeof(bytes)) {
        tcp_set_error(error, VMF_ERROR_CONNECT, errno, "cannot greet the peer");
        close(fd);
        return -1;
    }
    return fd;
}

VmfConn *tcp_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                     GError **error)
{
    TcpPreamble preamble = {.kind = TCP_KIND_CONTROL};
    GPollFD cancel_fd = {.fd = -1};
    TcpConn *conn = NULL;
    int fd;

    memcpy(preamble.uuid, uuid, VMF_UUID_BYTES);
    g_cancellable_make_pollfd(cancel, &cancel_fd);
    fd = open_socket(uri, &preamble, (unsigned)vmf_uri_get_uint(uri, "timeout"), cancel_fd.fd,
                     error);
    if (cancel_fd.fd >= 0) {
        g_cancellable_release_fd(cancel);
    }
    if (fd >= 0) {
        conn = tcp_conn_new(uri, VMF_ROLE_SOURCE, fd, error);
    }
    return conn ? &conn->base : NULL;
}

bool tcp_open_channels(VmfConn *base, GError **error)
{
    TcpConn *conn = tcp_conn(base);
    TcpPreamble preamble = {.kind = TCP_KIND_CHANNEL};

    /* As many as the peer wants, up to VMF_CHANNELS_MAX. */
    base->counters =
        VMF_FAULT("channel counters") ? NULL : g_try_new0(VmfChannelCounters, base->channels);
    if (!base->counters) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "no memory for %u channels",
                    base->channels);
        return false;
    }
    if (base->role == VMF_ROLE_DESTINATION) {
        return tcp_await_channels(conn, error);
    }
    memcpy(preamble.uuid, base->uuid, VMF_UUID_BYTES);
    for (unsigned i = 0; i < base->channels; i++) {
        int fd;

        preamble.channel = i;
        fd = open_socket(conn->uri, &preamble, base->timeout_ms, base->cancel_fd, error);
        if (fd < 0) {
            g_prefix_error(error, "channel %u: ", i);
            return false;
        }
        conn->channels[i] = tcp_channel_new(conn, i, fd);
    }
    return true;
}
