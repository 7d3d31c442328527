/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-source.c -- what a channel thread of the source calls: RAM, zero ranges, sync */

#include "ram-source.h"

#include <errno.h>
#include <poll.h>
#include <vmferry/plugin/bytes.h>

#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "write-queue.h"
#include "zero-log.h"

static void count_inflight(RdmaChannel *channel)
{
    __atomic_store_n(&channel->counters->inflight_bytes, channel->ep->inflight_bytes,
                     __ATOMIC_RELAXED);
}

/* --- RAM --- */

bool source_send_zero(VmfConn *base, unsigned number, unsigned block, uint64_t offset,
                      uint64_t length, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    const WireRange range = {.block = block, .length = (uint32_t)length, .offset = offset};
    ZeroLog *zeros = &channel->zeros;

    g_assert(length && length <= UINT32_MAX);
    if (write_queue_is_pending(channel, block, offset, length) &&
        !write_queue_post_all(channel, error)) {
        return false;
    }
    if (!zero_marks_set(channel->conn->zero_marks, block, base->blocks[block], offset, length)) {
        return true;
    }
    if (zero_log_is_long(zeros) && !channel->dialect->flush_zero(channel, error)) {
        return false;
    }
    if (zero_log_extend(zeros, &range)) {
        return true;
    }
    if (zero_log_is_full(zeros) && !channel->dialect->flush_zero(channel, error)) {
        return false;
    }
    zero_log_append(zeros, &range);
    return true;
}

bool source_send_ram(VmfConn *base, unsigned number, unsigned block, uint64_t offset,
                     uint64_t length, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = conn->channels[number];

    if (zero_marks_take(conn->zero_marks, block, offset, length) &&
        !channel->dialect->settle_zero(channel, error)) {
        return false;
    }
    while (length) {
        uint64_t in_chunk =
            (1ull << conn->chunks.shift) - (offset & ((1ull << conn->chunks.shift) - 1));
        uint32_t part = (uint32_t)MIN(MIN(length, in_chunk), channel->writes.length_max);

        if (!write_queue_add(channel, block, offset, part, error)) {
            return false;
        }
        offset += part;
        length -= part;
    }
    return true;
}

bool source_kick(VmfConn *base, unsigned number, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    bool ok = write_queue_push(channel, error);

    count_inflight(channel);
    return ok;
}

bool source_wait(VmfConn *base, unsigned number, int wake_fd, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    bool woken = false;

    if (!channel->dialect->flush_zero(channel, error)) {
        return false;
    }
    while (!woken) {
        if (g_atomic_int_get(&base->channels_done)) {
            struct pollfd fds[] = {{.fd = base->cancel_fd, .events = POLLIN},
                                   {.fd = wake_fd, .events = POLLIN}};
            /*
             * From now on the destination may take the queue pair down, so this side no longer
             * looks at it.
             */
            return poll(fds, G_N_ELEMENTS(fds), -1) >= 0 || errno == EINTR;
        }
        if (!write_queue_sleep(channel, -1, wake_fd, &woken, error)) {
            if (g_atomic_int_get(&base->channels_done)) {
                g_clear_error(error);
                continue;
            }
            return false;
        }
    }
    return true;
}

/* --- sync --- */

bool source_send_sync(VmfConn *base, unsigned number, uint64_t sync, bool drain, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    VmfWriter w;

    if (!write_queue_post_all(channel, error) || !channel->dialect->flush_zero(channel, error) ||
        !write_queue_await_send(channel, error)) {
        return false;
    }
    w = vmf_writer(endpoint_body(channel->ep), 8);
    vmf_write_be64(&w, sync);
    if (!endpoint_send(channel->ep, WIRE_SYNC, 0, vmf_writer_size(&w), error)) {
        return false;
    }
    if (drain && !write_queue_drain(channel, error)) {
        return false;
    }
    count_inflight(channel);
    return true;
}
