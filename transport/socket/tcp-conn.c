/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-conn.c -- connections of the socket transports, and their tables */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/fault.h"
#include "tcp.h"

#define CHANNELS_DEFAULT_MAX 4

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
    /* The first bytes on an empty socket always fit. */
    if (VMF_FAULT("send preamble")
            ? (errno = EPIPE, true)
            : send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != (ssize_t)sizeof(bytes)) {
        tcp_set_error(error, VMF_ERROR_CONNECT, errno, "cannot greet the peer");
        close(fd);
        return -1;
    }
    return fd;
}

static VmfConn *tcp_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                            GCancellable *cancel, GError **error)
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

static bool tcp_open_channels(VmfConn *base, GError **error)
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

static unsigned default_channels(VmfConn *conn)
{
    const int processors = get_nprocs();

    (void)conn;
    return (unsigned)CLAMP(processors, 2, CHANNELS_DEFAULT_MAX);
}

static size_t get_parameters(VmfConn *conn, uint8_t buffer[64])
{
    (void)conn;
    (void)buffer;
    return 0;
}

static bool peer_parameters(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error)
{
    (void)conn;
    (void)buffer;
    (void)size;
    (void)error;
    return true; /* there are none; a newer peer may have some */
}

static bool ram_setup(VmfConn *conn, GError **error)
{
    (void)error;
    conn->stripe = TCP_STRIPE;
    return true;
}

static bool control_message(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                            GError **error)
{
    (void)conn;
    (void)data;
    (void)size;
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                "unexpected message 0x%x on the control connection", type);
    return false;
}

static const VmfOptionSpec no_options[] = {{0}};

#define SOCKET_TRANSPORT(scheme_name, help_text)                                                   \
    {                                                                                              \
        .size = sizeof(VmfTransport), .abi_version = VMF_TRANSPORT_ABI, .scheme = scheme_name,     \
        .help = help_text, .options = no_options, .channels_max = VMF_CHANNELS_MAX,                \
        .connect = tcp_connect, .listen = tcp_listen, .listener_address = tcp_listener_address,    \
        .accept = tcp_accept, .listener_free = tcp_listener_free,                                  \
        .default_channels = default_channels, .get_parameters = get_parameters,                    \
        .peer_parameters = peer_parameters, .open_channels = tcp_open_channels,                    \
        .ram_setup = ram_setup, .control_send = tcp_control_send,                                  \
        .control_receive = tcp_control_receive, .control_wait = tcp_control_wait,                  \
        .control_message = control_message, .send_ram = tcp_send_ram, .send_zero = tcp_send_zero,  \
        .send_device = tcp_send_device, .send_sync = tcp_send_sync, .kick = tcp_kick,              \
        .wait = tcp_channel_wait, .serve = tcp_serve, .revoke = tcp_revoke, .close = tcp_close,    \
    }

const VmfTransport vmf_tcp_transport = SOCKET_TRANSPORT("tcp", "several TCP connections");
const VmfTransport vmf_unix_transport =
    SOCKET_TRANSPORT("unix", "several UNIX domain sockets, within one host");
