/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-source.c -- a channel on the source: few system calls for many records */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fault.h"
#include "base/fd-wait.h"
#include "tcp.h"

/* So many bytes are gathered before the kernel gets them. */
#define GATHER_BYTES (512u * 1024)

static void count(uint64_t *counter, uint64_t delta)
{
    __atomic_store_n(counter, *counter + delta, __ATOMIC_RELAXED);
}

static bool channel_error(TcpChannel *channel, int err, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                "channel %u: the connection to %s was lost: %s", channel->number,
                channel->conn->base.peer, g_strerror(err));
    return false;
}

/* Reads the acknowledgements that have come. It never waits. */
static bool take_acknowledgements(TcpChannel *channel, GError **error)
{
    for (;;) {
        uint8_t bytes[64];
        ssize_t n = recv(channel->fd, bytes, sizeof(bytes), 0);

        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return channel_error(channel, n == 0 ? ECONNRESET : errno, error);
        }
        for (ssize_t i = 0; i < n; i++) {
            uint64_t told = 0;

            channel->ack[channel->ack_have++] = bytes[i];
            if (channel->ack_have < 8) {
                continue;
            }
            channel->ack_have = 0;
            for (unsigned byte = 0; byte < 8; byte++) {
                told = told << 8 | channel->ack[byte];
            }
            if (told < channel->acknowledged || told > channel->sent) {
                g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                            "channel %u: the peer acknowledges byte %" G_GUINT64_FORMAT
                            ", %" G_GUINT64_FORMAT " were sent",
                            channel->number, told, channel->sent);
                return false;
            }
            channel->acknowledged = told;
        }
    }
    __atomic_store_n(&channel->counters->inflight_bytes, channel->sent - channel->acknowledged,
                     __ATOMIC_RELAXED);
    return true;
}

static bool wait_for(TcpChannel *channel, short events, GError **error)
{
    VmfConn *base = &channel->conn->base;
    char what[96];

    g_snprintf(what, sizeof(what), "channel %u: waiting for %s", channel->number, base->peer);
    return fd_wait(channel->fd, (short)(events | POLLIN), base->cancel_fd,
                   g_get_monotonic_time() + (gint64)base->timeout_ms * 1000, what, error) &&
           take_acknowledgements(channel, error);
}

/* Gives all of iov to the kernel. */
static bool send_all(TcpChannel *channel, struct iovec *iov, unsigned iovcnt, GError **error)
{
    while (iovcnt) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = iovcnt};
        ssize_t n = VMF_FAULT("sendmsg channel") ? (errno = EPIPE, -1)
                                                 : sendmsg(channel->fd, &message, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            if (!wait_for(channel, POLLOUT, error)) {
                return false;
            }
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return channel_error(channel, errno, error);
        }
        count(&channel->counters->doorbells, 1);
        channel->sent += (uint64_t)n;
        while (iovcnt && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            iovcnt--;
        }
        if (iovcnt) {
            iov->iov_base = (uint8_t *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return true;
}

static bool flush(TcpChannel *channel, GError **error)
{
    bool ok = send_all(channel, channel->iov, channel->iovs, error);

    channel->records = channel->iovs = 0;
    channel->gathered = 0;
    return ok;
}

/* Waits until at most `most' bytes are not acknowledged. */
static bool await_acknowledged(TcpChannel *channel, uint64_t most, GError **error)
{
    if (!take_acknowledgements(channel, error)) {
        return false;
    }
    while (channel->sent - channel->acknowledged > most) {
        if (!wait_for(channel, 0, error)) {
            return false;
        }
    }
    return true;
}

static bool add_record(TcpChannel *channel, const TcpRecord *record, void *data, size_t size,
                       GError **error)
{
    const VmfConn *base = &channel->conn->base;
    uint64_t window = base->max_inflight / base->channels;
    uint8_t *header;

    if (channel->records == TCP_RECORDS || channel->gathered + size > GATHER_BYTES) {
        if (!flush(channel, error)) {
            return false;
        }
    }
    if (size && channel->sent - channel->acknowledged + channel->gathered + size > window &&
        (!flush(channel, error) ||
         !await_acknowledged(channel, window > size ? window - size : 0, error))) {
        return false;
    }
    header = channel->headers[channel->records++];
    tcp_record_encode(record, header);
    channel->iov[channel->iovs++] = (struct iovec){.iov_base = header, .iov_len = TCP_RECORD_BYTES};
    if (size) {
        channel->iov[channel->iovs++] = (struct iovec){.iov_base = data, .iov_len = size};
    }
    channel->gathered += TCP_RECORD_BYTES + size;
    return true;
}

bool tcp_send_ram(VmfConn *base, unsigned number, unsigned block, uint64_t offset, uint64_t length,
                  GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];
    const TcpRecord record = {.type = TCP_RAM, .block = block, .offset = offset, .length = length};

    count(&channel->counters->ram_written, length);
    count(&channel->counters->writes, 1);
    return add_record(channel, &record, base->blocks[block]->host + offset, length, error);
}

bool tcp_send_zero(VmfConn *base, unsigned number, unsigned block, uint64_t offset, uint64_t length,
                   GError **error)
{
    const TcpRecord record = {.type = TCP_ZERO, .block = block, .offset = offset, .length = length};

    return add_record(tcp_conn(base)->channels[number], &record, NULL, 0, error);
}

bool tcp_send_sync(VmfConn *base, unsigned number, uint64_t sync, bool drain, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];
    const TcpRecord record = {.type = TCP_SYNC, .offset = sync};

    return add_record(channel, &record, NULL, 0, error) && flush(channel, error) &&
           (!drain || await_acknowledged(channel, 0, error));
}

bool tcp_send_device(VmfConn *base, unsigned number, const VmfDeviceHeader *header,
                     const void *data, void *piece, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];
    uint8_t device[TCP_DEVICE_HEADER_MAX], bytes[TCP_RECORD_BYTES];
    TcpRecord record = {.type = TCP_DEVICE, .length = header->size};
    struct iovec iov[3];

    record.block = (uint32_t)tcp_device_encode(header, device);
    tcp_record_encode(&record, bytes);
    iov[0] = (struct iovec){.iov_base = bytes, .iov_len = sizeof(bytes)};
    iov[1] = (struct iovec){.iov_base = device, .iov_len = record.block};
    iov[2] = (struct iovec){.iov_base = (void *)data, .iov_len = header->size};
    if (!flush(channel, error) || !send_all(channel, iov, G_N_ELEMENTS(iov), error)) {
        return false;
    }
    base->host->device_sent(base, number, piece);
    return true;
}

bool tcp_kick(VmfConn *base, unsigned number, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];

    return flush(channel, error) && take_acknowledgements(channel, error);
}

bool tcp_channel_wait(VmfConn *base, unsigned number, int wake_fd, GError **error)
{
    TcpChannel *channel = tcp_conn(base)->channels[number];

    for (;;) {
        bool done = g_atomic_int_get(&base->channels_done);
        struct pollfd fds[] = {
            {.fd = wake_fd, .events = POLLIN},
            {.fd = base->cancel_fd, .events = POLLIN},
            {.fd = done ? -1 : channel->fd, .events = POLLIN},
        };

        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR) {
            tcp_set_error(error, VMF_ERROR_IO, errno, "waiting on a channel");
            return false;
        }
        if (fds[0].revents || fds[1].revents) {
            return true;
        }
        if (fds[2].revents && !take_acknowledgements(channel, error)) {
            if (!g_atomic_int_get(&base->channels_done)) {
                return false;
            }
            g_clear_error(error); /* the destination has closed the channel, as it should */
        }
    }
}
