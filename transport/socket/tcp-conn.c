/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-conn.c -- connections of the socket transports: making and closing them and their channels */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/fault.h"
#include "tcp.h"

TcpConn *tcp_conn_new(const VmfUri *uri, VmfRole role, int fd, GError **error)
{
    TcpConn *conn = g_new0(TcpConn, 1);

    conn->base.size = sizeof(VmfConn);
    conn->base.role = role;
    conn->base.control_max = TCP_CONTROL_MAX;
    conn->base.registration = "none";
    conn->base.peer = tcp_peer_name(fd);
    conn->uri = vmf_uri_ref((VmfUri *)uri);
    conn->connect_timeout_ms = (unsigned)vmf_uri_get_uint(uri, "connect-timeout");
    conn->control_fd = fd;
    conn->out = g_malloc(4 + TCP_CONTROL_MAX);
    conn->in = g_malloc(2 * (4 + TCP_CONTROL_MAX));
    conn->base.own_bytes = 3 * (4 + TCP_CONTROL_MAX) + sizeof(*conn);
    g_mutex_init(&conn->idle_lock);
    g_cond_init(&conn->idle);
    conn->revoke_fd =
        VMF_FAULT("eventfd") ? (errno = EMFILE, -1) : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (conn->revoke_fd < 0) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot create an event descriptor");
        tcp_close(&conn->base);
        return NULL;
    }
    return conn;
}

TcpChannel *tcp_channel_new(TcpConn *conn, unsigned number, int fd)
{
    TcpChannel *channel = g_new0(TcpChannel, 1);

    channel->conn = conn;
    channel->number = number;
    channel->fd = fd;
    channel->counters = &conn->base.counters[number];
    conn->base.own_bytes += sizeof(*channel);
    if (conn->base.role == VMF_ROLE_DESTINATION) {
        channel->buffer = g_malloc(TCP_READ_BUFFER);
        channel->tell_sent = sizeof(channel->tell);
        conn->base.own_bytes += TCP_READ_BUFFER;
    }
    return channel;
}

void tcp_close(VmfConn *base)
{
    TcpConn *conn = tcp_conn(base);

    for (unsigned i = 0; i < VMF_CHANNELS_MAX; i++) {
        TcpChannel *channel = conn->channels[i];
        if (channel) {
            close(channel->fd);
            g_free(channel->buffer);
            g_free(channel);
        }
    }
    if (conn->control_fd >= 0) {
        close(conn->control_fd);
    }
    if (conn->revoke_fd >= 0) {
        close(conn->revoke_fd);
    }
    g_mutex_clear(&conn->idle_lock);
    g_cond_clear(&conn->idle);
    g_free(conn->out);
    g_free(conn->in);
    vmf_uri_unref(conn->uri);
    g_free(base->counters);
    g_free(base->peer);
    g_free(conn);
}
