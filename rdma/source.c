/* SPDX-License-Identifier: BSD-2-Clause */
/* source.c -- what a channel thread of the source calls: RAM, zero ranges, sync */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <vmferry/plugin/bytes.h>

#include "rdma.h"

static void count_inflight(RdmaChannel *channel)
{
    __atomic_store_n(&channel->counters->inflight_bytes, channel->ep->inflight_bytes,
                     __ATOMIC_RELAXED);
}

/* --- zero ranges, and their order against writes --- */

/*
 * An RDMA write may land before the destination has read a zero message that
 * was sent earlier, which would then wipe out newer data. So pages told to be
 * zero are marked, and a write to a marked page waits until every zero message
 * was dealt with. The reverse needs care only for a write that still waits for
 * its chunk: one that was posted is over when a later message is read, and one that is
 * listed is posted before the message.
 */

/* 4 KiB pages to a bit; a byte of marks is always one channel's, for a stripe is at least 64 KiB.
 */
#define MARK_SHIFT 12

static uint8_t *block_marks(RdmaConn *conn, unsigned block)
{
    uint8_t *marks = g_atomic_pointer_get(&conn->zero_marks[block]);

    if (!marks) {
        uint8_t *fresh = g_malloc0((conn->base.blocks[block]->length >> (MARK_SHIFT + 3)) + 1);
        if (g_atomic_pointer_compare_and_exchange(&conn->zero_marks[block], NULL, fresh)) {
            return fresh;
        }
        g_free(fresh); /* another channel was faster */
        marks = g_atomic_pointer_get(&conn->zero_marks[block]);
    }
    return marks;
}

static void mark(uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        if ((page & 7) == 0 && last - page >= 7) {
            marks[page >> 3] = 0xff;
            page += 7;
        } else {
            marks[page >> 3] |= (uint8_t)(1u << (page & 7));
        }
    }
}

/* Whether any page of the range is marked; forgets the marks. */
static bool unmark(uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;
    bool any = false;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        uint8_t *byte = &marks[page >> 3];

        if (!*byte) {
            page |= 7;
        } else if (*byte & (1u << (page & 7))) {
            any = true;
            *byte &= (uint8_t) ~(1u << (page & 7));
        }
    }
    return any;
}

/* Whether the destination was told already that all of the range is zero. */
static bool all_marked(const uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        if ((page & 7) == 0 && last - page >= 7 && marks[page >> 3] == 0xff) {
            page += 7;
        } else if (!(marks[page >> 3] & (1u << (page & 7)))) {
            return false;
        }
    }
    return true;
}

/*
 * What one message may name: to zero it takes a destination that must write it all, or read it
 * from swap, not much longer than a heartbeat.
 */
#define ZERO_WORK_MAX (256ull << 20)

static bool post_zero(RdmaChannel *channel, GError **error)
{
    Writer *w = &channel->writer;

    if (!w->zero_bytes) { /* went ahead of a registration request, in a wait for room to send */
        return true;
    }
    /* An older write of such a page may be listed: it must not land behind the zeros. */
    if (!writer_post_list(channel, error)) {
        return false;
    }
    memcpy(endpoint_body(channel->ep), w->zero_body, w->zero_bytes);
    if (!endpoint_send(channel->ep, WIRE_ZERO, 0, w->zero_bytes, error)) {
        return false;
    }
    w->zero_bytes = 0;
    w->zero_work = 0;
    w->zero_sent = true;
    w->zero_until = channel->ep->sent;
    return true;
}

static bool flush_zero(RdmaChannel *channel, GError **error)
{
    return !channel->writer.zero_bytes ||
           (writer_await_send(channel, error) && post_zero(channel, error));
}

static bool zero_acknowledged(RdmaChannel *channel)
{
    Writer *w = &channel->writer;

    if (w->zero_sent && (int32_t)(channel->ep->peer_processed - w->zero_until) >= 0) {
        w->zero_sent = false;
    }
    return !w->zero_sent;
}

/* Waits until the destination has dealt with every zero message. */
static bool settle_zero(RdmaChannel *channel, GError **error)
{
    if (!flush_zero(channel, error)) {
        return false;
    }
    if (zero_acknowledged(channel)) {
        return true;
    }
    if (!writer_await_send(channel, error) ||
        !endpoint_send(channel->ep, WIRE_NOP, WIRE_ACK_NOW, 0, error)) {
        return false;
    }
    while (!zero_acknowledged(channel)) {
        if (!writer_await_progress(channel, error)) {
            return false;
        }
    }
    return true;
}

/* --- messages --- */

static bool can_request(const RdmaChannel *channel)
{
    return endpoint_can_send(channel->ep);
}

static bool send_request(RdmaChannel *channel, const WireRegister *request, GError **error)
{
    Endpoint *ep = channel->ep;
    size_t size =
        wire_register_encode(request, endpoint_body(ep), ep->limits.send_bytes - WIRE_HEADER_BYTES);

    return endpoint_send(ep, WIRE_REGISTER, 0, size, error);
}

static bool send_nop(RdmaChannel *channel, GError **error)
{
    return endpoint_send(channel->ep, WIRE_NOP, 0, 0, error);
}

static bool handle_message(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    WireResult results[WRITER_REGISTER_BATCH];
    int awaited = registrar_awaited(channel);

    if (message->header.kind != WIRE_REGISTER_RESULT || awaited < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: message of kind %u is not for the source, or nobody asked for it",
                    channel->ep->name, message->header.kind);
        return false;
    }
    if (!wire_results_decode(message->body, message->size, (unsigned)awaited, results, error)) {
        g_prefix_error(error, "%s: ", channel->ep->name);
        return false;
    }
    return registrar_result(channel, results, error);
}

static bool take_messages(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;
    EndpointMessage message;
    bool taken = true;

    while (taken) {
        if (!endpoint_take(ep, &message, &taken, error) ||
            (taken &&
             (!handle_message(channel, &message, error) || !endpoint_done(ep, &message, error)))) {
            return false;
        }
    }
    return endpoint_ack_if_due(ep, error);
}

const WriterDialect native_writer_dialect = {
    .register_batch = WRITER_REGISTER_BATCH,
    .requests_max = WRITER_REQUESTS_MAX,
    .nop_is_message = true,
    .can_request = can_request,
    .send_request = send_request,
    .send_nop = send_nop,
    .take_messages = take_messages,
    .post_zero = post_zero,
    .flush_zero = flush_zero,
    .settle_zero = settle_zero,
};

/* --- what the engine calls --- */

bool source_send_zero(VmfConn *base, unsigned number, unsigned block, uint64_t offset,
                      uint64_t length, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    Writer *w = &channel->writer;
    WireRange range = {.block = block, .length = (uint32_t)length, .offset = offset};
    uint8_t *marks = block_marks(channel->conn, block);

    g_assert(length && length <= UINT32_MAX);
    if (writer_is_pending(channel, block, offset, length) && !writer_post_all(channel, error)) {
        return false;
    }
    /* Ranges of smaller pages could have marked a 4 KiB page for a part of it. */
    if (base->blocks[block]->page_size >= 1u << MARK_SHIFT && all_marked(marks, offset, length)) {
        return true;
    }
    mark(marks, offset, length);
    if (w->zero_work >= ZERO_WORK_MAX && !w->dialect->flush_zero(channel, error)) {
        return false;
    }
    w->zero_work += length;
    if (w->zero_bytes) {
        uint8_t *at = w->zero_body + w->zero_bytes - WIRE_RANGE_BYTES;
        WireRange last;

        wire_range_decode(at, 0, &last);
        if (last.block == block && last.offset + last.length == offset &&
            length <= UINT32_MAX - last.length) {
            last.length += (uint32_t)length;
            wire_range_encode(&last, at);
            return true;
        }
    }
    if (w->zero_bytes + WIRE_RANGE_BYTES > w->zero_room &&
        !w->dialect->flush_zero(channel, error)) {
        return false;
    }
    wire_range_encode(&range, w->zero_body + w->zero_bytes);
    w->zero_bytes += WIRE_RANGE_BYTES;
    return true;
}

bool source_send_ram(VmfConn *base, unsigned number, unsigned block, uint64_t offset,
                     uint64_t length, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = conn->channels[number];
    Writer *w = &channel->writer;
    uint8_t *marks = g_atomic_pointer_get(&conn->zero_marks[block]);

    if (marks && unmark(marks, offset, length) && !w->dialect->settle_zero(channel, error)) {
        return false;
    }
    while (length) {
        uint64_t in_chunk =
            (1ull << conn->chunks.shift) - (offset & ((1ull << conn->chunks.shift) - 1));
        uint32_t part = (uint32_t)MIN(MIN(length, in_chunk), w->length_max);

        if (!writer_add(channel, block, offset, part, error)) {
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
    bool ok = writer_push(channel, error);

    count_inflight(channel);
    return ok;
}

bool source_wait(VmfConn *base, unsigned number, int wake_fd, GError **error)
{
    RdmaChannel *channel = conn_of(base)->channels[number];
    bool woken = false;

    if (!flush_zero(channel, error)) {
        return false;
    }
    while (!woken) {
        if (g_atomic_int_get(&base->channels_done)) {
            struct pollfd fds[] = {{.fd = base->cancel_fd, .events = POLLIN},
                                   {.fd = wake_fd, .events = POLLIN}};
            /* The destination may take the queue pair down now: look at it no more. */
            return poll(fds, G_N_ELEMENTS(fds), -1) >= 0 || errno == EINTR;
        }
        if (!writer_sleep(channel, -1, wake_fd, &woken, error)) {
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

    if (!writer_post_all(channel, error) || !flush_zero(channel, error) ||
        !writer_await_send(channel, error)) {
        return false;
    }
    w = vmf_writer(endpoint_body(channel->ep), 8);
    vmf_write_be64(&w, sync);
    if (!endpoint_send(channel->ep, WIRE_SYNC, 0, vmf_writer_size(&w), error)) {
        return false;
    }
    if (drain && !writer_drain(channel, error)) {
        return false;
    }
    count_inflight(channel);
    return true;
}
