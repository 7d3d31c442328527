/* SPDX-License-Identifier: BSD-2-Clause */
/* serve.c -- a channel on the destination: registers, zeroes, takes device state and syncs */

#include "serve.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vmferry/plugin/bytes.h>

#include "rdma-conn.h"
#include "verbs/endpoint-messages.h"
#include "piece-destination.h"
#include "serving.h"
#include "verbs/verbs-error.h"
#include "zero-ranges.h"

/* Sets the error of a queue pair that the peer took down. Always false. */
static bool peer_took_it_down(const RdmaChannel *channel, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "%s: the peer took the queue pair down",
                channel->ep->name);
    nic_explain(channel->ep->id, error);
    return false;
}

/* Waits until an answer can be sent. For that, earlier messages must have left their slots. */
static bool await_slot(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    Endpoint *ep = channel->ep;
    const EndpointWakers wakers = {
        .cancel = conn->base.cancel_fd, .wake = conn->revoke_fd, .events = -1, .listener = -1};
    const gint64 deadline =
        g_get_monotonic_time() + (gint64)conn->base.timeout_ms * G_TIME_SPAN_MILLISECOND;
    unsigned woke;

    while (ep->slots_used == ENDPOINT_SEND_SLOTS || ep->queue_used == ep->queue_size) {
        const gint64 left = deadline - g_get_monotonic_time();

        if (serve_is_over(conn, error)) {
            return false;
        }
        if (ep->flushed) {
            return peer_took_it_down(channel, error);
        }
        if (left <= 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                        "%s: the source's device takes no answer for %.1f s", ep->name,
                        conn->base.timeout_ms / 1000.0);
            return false;
        }
        if (!endpoint_sleep(ep, &wakers, (int)(left / 1000) + 1, 0, &woke, error) ||
            !endpoint_poll(ep, error)) {
            return false;
        }
    }
    return true;
}

static bool handle_sync(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    VmfConn *base = &channel->conn->base;
    VmfReader r = vmf_reader(message->body, message->size);
    uint64_t number = vmf_read_be64(&r);

    if (!vmf_reader_done(&r)) {
        return serve_refused(channel, error, "a sync message that is not 8 bytes long");
    }
    return zero_ranges_settle(channel, error) &&
           base->host->sync_seen(base, channel->number, number, error);
}

static bool handle_zero(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    ssize_t count = wire_range_count(message->size, error);

    for (ssize_t i = 0; i < count; i++) {
        WireRange range;

        wire_range_decode(message->body, (size_t)i, &range);
        if (!range.length) {
            return serve_refused(channel, error, "a zero range of 0 bytes");
        }
        if (!zero_ranges_take(channel, range.block, range.offset, range.length, error)) {
            return false;
        }
    }
    if (count < 0) {
        g_prefix_error(error, "%s: ", channel->ep->name);
    }
    return count >= 0;
}

/* --- registration --- */

/*
 * A chunk from the wire must exist, and must belong to this channel, because a chunk's state has no
 * lock.
 */
static bool check_chunk(RdmaChannel *channel, const WireChunk *name, GError **error)
{
    RdmaConn *conn = channel->conn;

    if (conn->options.registration != RDMA_REGISTRATION_CHUNK) {
        return serve_refused(channel, error, "a registration request, but all RAM is pinned");
    }
    if (name->block >= conn->chunks.block_count ||
        name->index >= chunks_count(&conn->chunks, name->block)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: there is no chunk %u in RAM block number %u", channel->ep->name,
                    name->index, name->block);
        return false;
    }
    if ((name->index + name->block) % conn->base.channels != channel->number) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: chunk %u of RAM block number %u belongs to another channel",
                    channel->ep->name, name->index, name->block);
        return false;
    }
    return true;
}

static bool handle_register(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    RdmaConn *conn = channel->conn;
    WireRegister request;
    WireResult results[WIRE_REGISTER_MAX];
    size_t size;

    if (!wire_register_decode(message->body, message->size, &request, error)) {
        g_prefix_error(error, "%s: ", channel->ep->name);
        return false;
    }
    for (unsigned i = 0; i < request.evicted + request.wanted; i++) {
        if (!check_chunk(channel, &request.chunks[i], error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < request.evicted; i++) {
        chunks_unregister(&conn->chunks, request.chunks[i].block, request.chunks[i].index,
                          channel->counters);
    }
    for (unsigned i = 0; i < request.wanted; i++) {
        const WireChunk *name = &request.chunks[request.evicted + i];
        Chunk *chunk = &conn->chunks.chunks[conn->chunks.first[name->block] + name->index];
        int err = 0;

        if (!chunk->mr) {
            if (!zero_ranges_before_registration(channel, name->block, name->index, error)) {
                return false;
            }
            err = chunks_register(&conn->chunks, name->block, name->index, channel->counters);
        }
        if (!serve_alive(channel, error)) {
            return false;
        }
        results[i] = (WireResult){.status = (uint32_t)err, .rkey = err ? 0 : chunk->mr->rkey};
    }
    if (!await_slot(channel, error)) {
        return false;
    }
    /*
     * The source has at most half a window of requests unanswered, so it can take one more answer.
     */
    if (!endpoint_can_send(channel->ep)) {
        return serve_refused(channel, error, "more registration requests than may be unanswered");
    }
    size = wire_results_encode(results, request.wanted, endpoint_body(channel->ep),
                               channel->ep->limits.send_bytes - WIRE_HEADER_BYTES);
    return endpoint_send(channel->ep, WIRE_REGISTER_RESULT, 0, size, error);
}

/* --- the loop --- */

static bool handle(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    switch (message->header.kind) {
    case WIRE_SYNC:
        return handle_sync(channel, message, error);
    case WIRE_ZERO:
        return handle_zero(channel, message, error);
    case WIRE_REGISTER:
        return handle_register(channel, message, error);
    case WIRE_DEVICE_FIRST:
        return piece_receive_first(channel, message, error);
    case WIRE_DEVICE_MORE:
        return piece_receive_more(channel, message, error);
    case WIRE_DEVICE_WRITTEN:
        return piece_receive_written(channel, message, error);
    case WIRE_NOP:
        return true;
    default:
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: message of kind %u is not for the destination", channel->ep->name,
                    message->header.kind);
        return false;
    }
}

/*
 * Discards are looked at when a message has come. So a sync is not reported if some data before it
 * is lost. Each message is also a place to end, because a hostile source always has one more
 * message.
 */
static bool handle_one(RdmaChannel *channel, const EndpointMessage *message, GError **error)
{
    return !serve_is_over(channel->conn, error) &&
           serve_check_discards(channel, serve_chunk_registered, error) &&
           handle(channel, message, error);
}

static bool handle_all(RdmaChannel *channel, GError **error)
{
    Endpoint *ep = channel->ep;
    EndpointMessage message;
    bool taken;

    for (;;) {
        /* The poll also frees send slots for the answers. */
        if (!endpoint_poll(ep, error) || !endpoint_take(ep, &message, &taken, error)) {
            return false;
        }
        if (!taken) {
            return ep->flushed || endpoint_ack_if_due(ep, error);
        }
        if (!handle_one(channel, &message, error) || !endpoint_done(ep, &message, error) ||
            (!ep->flushed && !endpoint_ack_if_due(ep, error))) {
            return false;
        }
    }
}

bool serve_channel(VmfConn *base, unsigned number, GError **error)
{
    RdmaConn *conn = conn_of(base);
    RdmaChannel *channel = conn->channels[number];
    Endpoint *ep = channel->ep;
    const EndpointWakers wakers = {
        .cancel = base->cancel_fd, .wake = conn->revoke_fd, .events = -1, .listener = -1};
    unsigned woke = 0;

    while (!woke) {
        if (!handle_all(channel, error)) {
            /* A queue pair that dies because it was taken down is no error. */
            if (g_atomic_int_get(&conn->revoked)) {
                g_clear_error(error);
                return true;
            }
            return false;
        }
        if (g_atomic_int_get(&conn->revoked)) {
            return true;
        }
        if (ep->flushed) {
            return peer_took_it_down(channel, error);
        }
        if (!endpoint_sleep(ep, &wakers, -1, conn->options.poll_us, &woke, error)) {
            return g_atomic_int_get(&conn->revoked) ? (g_clear_error(error), true) : false;
        }
    }
    return true;
}

bool serve_revoke(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    const uint64_t one = 1;
    bool ok = true;

    g_atomic_int_set(&conn->revoked, 1);
    for (unsigned i = 0; i < base->channels; i++) {
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
        int err = conn->channels[i]
                      ? VERBS_INT("ibv_modify_qp ERR",
                                  ibv_modify_qp(conn->channels[i]->ep->qp, &attr, IBV_QP_STATE))
                      : 0;

        /*
         * All channels are tried, because each one that is down is one way less into the guest's
         * memory.
         */
        if (err && ok) {
            verbs_set_error(error, VMF_ERROR_DEVICE, err,
                            "%s: cannot take the queue pair down to revoke access to guest RAM",
                            conn->channels[i]->ep->name);
            ok = false;
        }
    }
    if (write(conn->revoke_fd, &one, sizeof(one)) != (ssize_t)sizeof(one) && ok) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot wake the channels");
        ok = false;
    }
    return ok;
}
