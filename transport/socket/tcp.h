/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp.h -- connections and channels of the socket transports, shared by the tcp-*.c files */

#ifndef VMF_TCP_H
#define VMF_TCP_H

#include <vmferry/plugin/transport.h>

#include "tcp-wire.h"

#define TCP_CONTROL_MAX (64u * 1024)
/* Bytes of a block that stay on one channel. RAM records are not longer. */
#define TCP_STRIPE (1024u * 1024)
/* Records gathered for one sendmsg. */
#define TCP_RECORDS 64

typedef struct TcpConn TcpConn;

typedef struct TcpChannel {
    TcpConn *conn;
    unsigned number;
    int fd;
    VmfChannelCounters *counters;

    /* Source: records that the kernel does not have yet, and bytes that are not acknowledged. */
    uint8_t headers[TCP_RECORDS][TCP_RECORD_BYTES];
    struct iovec iov[2 * TCP_RECORDS];
    unsigned records, iovs;
    uint64_t gathered;
    uint64_t sent, acknowledged; /* bytes of records since the start */
    uint8_t ack[8];
    size_t ack_have;

    /* Destination. */
    uint8_t *buffer; /* of TCP_READ_BUFFER */
    size_t start, end;
    bool in_record; /* the rest of a record is still to come */
    uint64_t processed, processed_told;
    uint8_t tell[8]; /* the acknowledgement that is being sent, from tell_sent on */
    unsigned tell_sent;
    int at_work; /* atomic: may write to RAM */
} TcpChannel;

#define TCP_READ_BUFFER (64u * 1024)

struct TcpConn {
    VmfConn base; /* first */
    VmfUri *uri;
    struct TcpListener *listener; /* destination, while channels are awaited */
    unsigned connect_timeout_ms;
    int control_fd;
    int revoke_fd;
    int revoked; /* atomic */
    GMutex idle_lock;
    GCond idle; /* after `revoked': a channel's at_work became 0 */
    TcpChannel *channels[VMF_CHANNELS_MAX];

    /* The control socket: one message that the kernel took only in part, and bytes that came. */
    uint8_t *out, *in;
    size_t out_start, out_end, in_start, in_end;
    bool heard; /* a whole message has come, so the peer is a vmferry */
};

static inline TcpConn *tcp_conn(VmfConn *conn)
{
    return (TcpConn *)conn;
}

/* --- tcp-socket.c --- */
bool tcp_prepare(int fd, unsigned timeout_ms, GError **error);
/* Connects to the URI's address, which the error names. Returns a non-blocking socket, or -1. */
int tcp_connect_socket(const VmfUri *uri, gint64 deadline, int cancel_fd, GError **error);
char *tcp_peer_name(int fd);
void tcp_set_error(GError **error, int code, int err, const char *what);

/* --- tcp-listen.c --- */
VmfTransportListener *tcp_listen(const VmfUri *uri, GError **error);
char *tcp_listener_address(VmfTransportListener *listener);
VmfConn *tcp_accept(VmfTransportListener *listener, GCancellable *cancel, GError **error);
void tcp_listener_free(VmfTransportListener *listener);
bool tcp_await_channels(TcpConn *conn, GError **error);

/* --- tcp-connect.c --- */
VmfConn *tcp_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                     GError **error);
bool tcp_open_channels(VmfConn *conn, GError **error);

/* --- tcp-conn.c --- */
TcpConn *tcp_conn_new(const VmfUri *uri, VmfRole role, int fd, GError **error);
TcpChannel *tcp_channel_new(TcpConn *conn, unsigned number, int fd);
void tcp_close(VmfConn *conn);

/* --- tcp-control.c --- */
/* A message on the control socket follows its length. */
#define TCP_FRAME_BYTES 4
void tcp_frame_encode(size_t size, uint8_t out[TCP_FRAME_BYTES]);
VmfControlResult tcp_control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                  GError **error);
VmfControlResult tcp_control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                     GError **error);
bool tcp_control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms, GError **error);

/* --- tcp-source.c --- */
bool tcp_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset, uint64_t length,
                  GError **error);
bool tcp_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                   uint64_t length, GError **error);
bool tcp_send_device(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header,
                     const void *data, void *piece, GError **error);
bool tcp_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
bool tcp_kick(VmfConn *conn, unsigned channel, GError **error);
bool tcp_channel_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

/* --- tcp-serve.c --- */
bool tcp_serve(VmfConn *conn, unsigned channel, GError **error);
bool tcp_revoke(VmfConn *conn, GError **error);

#endif
