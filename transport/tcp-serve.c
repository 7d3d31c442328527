/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-serve.c -- a channel on the destination: bytes go straight into guest memory */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fault.h"
#include "tcp.h"

/* How much is dealt with before the source is told, unless it must know at once. */
#define TELL_BYTES (512u * 1024)

/* The channel ends: revoked, or closed by the peer between two records. */
typedef enum { READ_OK, READ_END, READ_FAILED } ReadResult;

static bool tell(TcpChannel *channel, GError **error)
{
    uint8_t bytes[8];

    if (channel->processed == channel->processed_told) {
        return true;
    }
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(channel->processed >> (56 - 8 * i));
    }
    /* A socket buffer always has room for the few that can be unread. */
    if (send(channel->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != (ssize_t)sizeof(bytes)) {
        if (g_atomic_int_get(&channel->conn->revoked) || errno == EPIPE || errno == ECONNRESET) {
            return true; /* the read side tells the end */
        }
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "channel %u: cannot acknowledge: %s",
                    channel->number, g_strerror(errno));
        return false;
    }
    channel->processed_told = channel->processed;
    return true;
}

static ReadResult wait_readable(TcpChannel *channel, GError **error)
{
    TcpConn *conn = channel->conn;
    struct pollfd fds[] = {
        {.fd = channel->fd, .events = POLLIN},
        {.fd = conn->base.cancel_fd, .events = POLLIN},
        {.fd = conn->revoke_fd, .events = POLLIN},
    };

    /* The source may be waiting for room while we wait for bytes. */
    if (!tell(channel, error)) {
        return READ_FAILED;
    }
    if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "waiting on a channel");
        return READ_FAILED;
    }
    return fds[1].revents || fds[2].revents ? READ_END : READ_OK;
}

/*
 * Reads at least one byte into `into' (up to size) and what follows into the
 * buffer, which must be empty.
 */
static ReadResult read_some(TcpChannel *channel, uint8_t *into, size_t size, size_t *got,
                            GError **error)
{
    for (;;) {
        struct iovec iov[] = {{.iov_base = into, .iov_len = size},
                              {.iov_base = channel->buffer, .iov_len = TCP_READ_BUFFER}};
        ssize_t n =
            VMF_FAULT("readv channel") ? (errno = ECONNRESET, -1) : readv(channel->fd, iov, 2);

        if (n > 0) {
            *got = MIN((size_t)n, size);
            channel->start = 0;
            channel->end = (size_t)n - *got;
            return READ_OK;
        }
        if (n == 0) {
            return READ_END;
        }
        if (errno == EAGAIN) {
            ReadResult result = wait_readable(channel, error);
            if (result != READ_OK) {
                return result;
            }
        } else if (errno != EINTR) {
            if (g_atomic_int_get(&channel->conn->revoked)) {
                return READ_END;
            }
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "channel %u: the connection to %s was lost: %s", channel->number,
                        channel->conn->base.peer, g_strerror(errno));
            return READ_FAILED;
        }
    }
}

/* Reads exactly size bytes; READ_END only before the first of them when `first' allows. */
static ReadResult read_exactly(TcpChannel *channel, void *memory, uint64_t size, bool first,
                               GError **error)
{
    uint8_t *into = memory;
    bool any = !first;

    while (size) {
        size_t got = MIN(size, channel->end - channel->start);
        ReadResult result = READ_OK;

        if (got) {
            memcpy(into, channel->buffer + channel->start, got);
            channel->start += got;
        } else {
            result = read_some(channel, into, size, &got, error);
        }
        if (result == READ_END && any && !g_atomic_int_get(&channel->conn->revoked) &&
            !g_cancellable_is_cancelled(channel->conn->base.cancel)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "channel %u: %s closed the connection in the middle of a record",
                        channel->number, channel->conn->base.peer);
            return READ_FAILED;
        }
        if (result != READ_OK) {
            return result;
        }
        any = true;
        into += got;
        size -= got;
        channel->processed += got;
    }
    return READ_OK;
}

static ReadResult take_device(TcpChannel *channel, const TcpRecord *record, GError **error)
{
    VmfConn *base = &channel->conn->base;
    uint8_t bytes[TCP_DEVICE_HEADER_MAX];
    VmfDeviceHeader header;
    ReadResult result = read_exactly(channel, bytes, record->block, false, error);
    void *memory;

    if (result != READ_OK) {
        return result;
    }
    if (!tcp_device_decode(bytes, record->block, &header, error)) {
        return READ_FAILED;
    }
    header.size = record->length;
    memory = base->host->device_begin(base, channel->number, &header, error);
    if (!memory) {
        return READ_FAILED;
    }
    result = read_exactly(channel, memory, record->length, false, error);
    if (result != READ_OK) {
        return result;
    }
    return base->host->device_done(base, channel->number, error) ? READ_OK : READ_FAILED;
}

static ReadResult take_record(TcpChannel *channel, const TcpRecord *record, GError **error)
{
    VmfConn *base = &channel->conn->base;
    void *memory;

    switch (record->type) {
    case TCP_RAM:
        memory = base->host->ram_range(base, record->block, record->offset, record->length, error);
        return memory ? read_exactly(channel, memory, record->length, false, error) : READ_FAILED;
    case TCP_ZERO:
        return base->host->zero_range(base, record->block, record->offset, record->length, error)
                   ? READ_OK
                   : READ_FAILED;
    case TCP_SYNC:
        return base->host->sync_seen(base, channel->number, record->offset, error) &&
                       tell(channel, error)
                   ? READ_OK
                   : READ_FAILED;
    case TCP_DEVICE:
        return take_device(channel, record, error);
    }
    return READ_FAILED;
}

bool tcp_serve(VmfConn *base, unsigned number, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];
    uint8_t bytes[TCP_RECORD_BYTES];
    TcpRecord record;
    ReadResult result;

    do {
        result = read_exactly(channel, bytes, sizeof(bytes), true, error);
        if (result == READ_OK) {
            result = tcp_record_decode(bytes, &record, error) ? take_record(channel, &record, error)
                                                              : READ_FAILED;
        }
        if (result == READ_OK && channel->processed - channel->processed_told >= TELL_BYTES &&
            !tell(channel, error)) {
            result = READ_FAILED;
        }
    } while (result == READ_OK);
    if (result == READ_FAILED) {
        g_prefix_error(error, "from %s: ", base->peer);
    }
    return result == READ_END;
}

bool tcp_revoke(VmfConn *base, GError **error)
{
    TcpConn *conn = tcp_conn(base);
    const uint64_t one = 1;

    g_atomic_int_set(&conn->revoked, 1);
    for (unsigned i = 0; i < base->channels; i++) {
        shutdown(conn->channels[i]->fd, SHUT_RDWR);
    }
    if (write(conn->revoke_fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot wake the channels");
        return false;
    }
    return true;
}
