/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-serve.c -- a channel on the destination: bytes go straight into guest memory */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <vmferry/plugin/bytes.h>

#include "base/fault.h"
#include "tcp.h"

/* So many bytes are processed before the source is told, unless it must know at once. */
#define TELL_BYTES (512u * 1024)

/* READ_END: revoked, cancelled, or closed by the peer between two records. */
typedef enum { READ_OK, READ_END, READ_FAILED } ReadResult;

static bool is_ending(const TcpChannel *channel)
{
    return g_atomic_int_get(&channel->conn->revoked) ||
           g_cancellable_is_cancelled(channel->conn->base.cancel);
}

/* --- who may write to RAM: see tcp_revoke() --- */

/* Whether RAM may be written from here on. */
static bool work_begin(TcpChannel *channel)
{
    g_atomic_int_set(&channel->at_work, 1);
    return !g_atomic_int_get(&channel->conn->revoked);
}

static void work_end(TcpChannel *channel)
{
    TcpConn *conn = channel->conn;

    g_atomic_int_set(&channel->at_work, 0);
    if (g_atomic_int_get(&conn->revoked)) {
        g_mutex_lock(&conn->idle_lock);
        g_cond_broadcast(&conn->idle);
        g_mutex_unlock(&conn->idle_lock);
    }
}

/* --- acknowledging --- */

/* Tells the source how much was processed, as far as the socket takes it now. */
static bool tell(TcpChannel *channel, GError **error)
{
    while (channel->tell_sent < sizeof(channel->tell) ||
           channel->processed != channel->processed_told) {
        ssize_t n;

        if (channel->tell_sent == sizeof(channel->tell)) {
            VmfWriter w = vmf_writer(channel->tell, sizeof(channel->tell));

            vmf_write_be64(&w, channel->processed);
            channel->processed_told = channel->processed;
            channel->tell_sent = 0;
        }
        n = VMF_FAULT("send acknowledgement")
                ? (errno = ENOBUFS, -1)
                : send(channel->fd, channel->tell + channel->tell_sent,
                       sizeof(channel->tell) - channel->tell_sent, MSG_NOSIGNAL);
        if (n >= 0) {
            channel->tell_sent += (unsigned)n;
        } else if (errno == EAGAIN) {
            return true; /* the source has many unread; wait_readable() goes on with it */
        } else if (errno == EPIPE || errno == ECONNRESET || is_ending(channel)) {
            channel->tell_sent = sizeof(channel->tell);
            return true; /* reading will tell how it ended */
        } else if (errno != EINTR) {
            tcp_set_error(error, VMF_ERROR_PEER_LOST, errno, "cannot acknowledge");
            return false;
        }
    }
    return true;
}

/* --- reading --- */

static bool sleep_until_readable(TcpChannel *channel, GError **error)
{
    TcpConn *conn = channel->conn;
    bool untold = channel->tell_sent < sizeof(channel->tell);
    struct pollfd fds[] = {
        {.fd = channel->fd, .events = (short)(POLLIN | (untold ? POLLOUT : 0))},
        {.fd = conn->base.cancel_fd, .events = POLLIN},
        {.fd = conn->revoke_fd, .events = POLLIN},
    };
    /* A channel may be idle for ever between records. The control connection finds a lost peer. */
    int n = poll(fds, G_N_ELEMENTS(fds), channel->in_record ? (int)conn->base.timeout_ms : -1);

    if (n < 0 && errno != EINTR) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot wait");
        return false;
    }
    if (n == 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "nothing came in the middle of a record for %.1f s",
                    conn->base.timeout_ms / 1000.0);
        return false;
    }
    return true;
}

static ReadResult wait_readable(TcpChannel *channel, GError **error)
{
    bool ok;

    /* The source may wait for acknowledgements while this side waits for bytes. */
    if (!tell(channel, error)) {
        return READ_FAILED;
    }
    work_end(channel);
    ok = sleep_until_readable(channel, error);
    if (!work_begin(channel) || is_ending(channel)) {
        g_clear_error(error);
        return READ_END;
    }
    return ok ? READ_OK : READ_FAILED;
}

/*
 * Reads at least one byte into `into', at most `size', and what follows into the buffer, which must
 * be empty.
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
            if (is_ending(channel)) {
                return READ_END;
            }
            tcp_set_error(error, VMF_ERROR_PEER_LOST, errno, "the connection was lost");
            return READ_FAILED;
        }
    }
}

/* Reads exactly `size' bytes. The peer may close only before the first byte of a record. */
static ReadResult read_exactly(TcpChannel *channel, void *memory, uint64_t size, GError **error)
{
    uint8_t *into = memory;

    while (size) {
        size_t got = MIN(size, channel->end - channel->start);
        ReadResult result = READ_OK;

        if (is_ending(channel)) {
            return READ_END;
        }
        if (got) {
            memcpy(into, channel->buffer + channel->start, got);
            channel->start += got;
        } else {
            result = read_some(channel, into, size, &got, error);
        }
        if (result == READ_END && channel->in_record && !is_ending(channel)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "the connection was closed in the middle of a record");
            return READ_FAILED;
        }
        if (result != READ_OK) {
            return result;
        }
        channel->in_record = true;
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
    ReadResult result = read_exactly(channel, bytes, record->block, error);
    void *memory;

    if (result != READ_OK) {
        return result;
    }
    if (!tcp_device_decode(bytes, record->block, &header, error)) {
        return READ_FAILED;
    }
    header.size = record->length;
    /* device_begin() may take long, and a revocation need not wait for it: this is not RAM. */
    work_end(channel);
    memory = base->host->device_begin(base, channel->number, &header, error);
    if (!work_begin(channel)) {
        return READ_END;
    }
    if (!memory) {
        return READ_FAILED;
    }
    result = read_exactly(channel, memory, record->length, error);
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
        return memory ? read_exactly(channel, memory, record->length, error) : READ_FAILED;
    case TCP_ZERO:
        return base->host->release_range(base, record->block, record->offset, record->length, error)
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

static ReadResult serve_record(TcpChannel *channel, GError **error)
{
    uint8_t bytes[TCP_RECORD_BYTES];
    TcpRecord record;
    ReadResult result;

    channel->in_record = false;
    result = read_exactly(channel, bytes, sizeof(bytes), error);
    if (result != READ_OK) {
        return result;
    }
    if (!tcp_record_decode(bytes, &record, error)) {
        return READ_FAILED;
    }
    result = take_record(channel, &record, error);
    if (result == READ_OK && channel->processed - channel->processed_told >= TELL_BYTES &&
        !tell(channel, error)) {
        return READ_FAILED;
    }
    return result;
}

bool tcp_serve(VmfConn *base, unsigned number, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];
    g_autoptr(GError) failure = NULL;
    ReadResult result = work_begin(channel) ? READ_OK : READ_END;

    while (result == READ_OK) {
        result = serve_record(channel, &failure);
    }
    work_end(channel);
    if (result == READ_FAILED) {
        g_propagate_prefixed_error(error, g_steal_pointer(&failure),
                                   "channel %u, from %s: ", number, base->peer);
    }
    return result == READ_END;
}

/*
 * Shutting the sockets down wakes the channels, but what has arrived may still be read. So RAM is
 * out of reach only when each channel sleeps or has ended, and has seen `revoked'. No channel takes
 * longer than reading one record that is there already.
 */
bool tcp_revoke(VmfConn *base, GError **error)
{
    TcpConn *conn = tcp_conn(base);
    const uint64_t one = 1;

    g_atomic_int_set(&conn->revoked, 1);
    for (unsigned i = 0; i < base->channels; i++) {
        if (conn->channels[i]) {
            shutdown(conn->channels[i]->fd, SHUT_RDWR);
        }
    }
    if (VMF_FAULT("write eventfd")
            ? (errno = EIO, true)
            : write(conn->revoke_fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot wake the channels");
        return false;
    }
    g_mutex_lock(&conn->idle_lock);
    for (unsigned i = 0; i < base->channels; i++) {
        while (conn->channels[i] && g_atomic_int_get(&conn->channels[i]->at_work)) {
            g_cond_wait(&conn->idle, &conn->idle_lock);
        }
    }
    g_mutex_unlock(&conn->idle_lock);
    return true;
}
