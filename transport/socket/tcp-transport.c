/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-transport.c -- the tables of the transports tcp: and unix: */

#include "tcp-transport.h"

#include <sys/sysinfo.h>

#include "tcp.h"

#define CHANNELS_DEFAULT_MAX 4

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
        .size = sizeof(VmfTransport), .abi_version = VMF_TRANSPORT_ABI, .scheme = (scheme_name),   \
        .help = (help_text), .options = no_options, .channels_max = VMF_CHANNELS_MAX,              \
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

const VmfTransport tcp_transport = SOCKET_TRANSPORT("tcp", "several TCP connections");
const VmfTransport unix_transport =
    SOCKET_TRANSPORT("unix", "several UNIX domain sockets, within one host");
