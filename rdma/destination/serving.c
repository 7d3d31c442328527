/* SPDX-License-Identifier: BSD-2-Clause */
/* serving.c -- destination: checks between messages, and in the middle of long work */

#include "serving.h"

#include "rdma-conn.h"
#include "discards.h"
#include "verbs/endpoint-messages.h"

bool serve_is_over(RdmaConn *conn, GError **error)
{
    if (g_cancellable_is_cancelled(conn->base.cancel) || g_atomic_int_get(&conn->revoked)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
        return true;
    }
    return false;
}

bool serve_alive(RdmaChannel *channel, GError **error)
{
    const gint64 now = g_get_monotonic_time();

    if (serve_is_over(channel->conn, error)) {
        return false;
    }
    if (channel->conn->base.foreign ||
        now - channel->alive_told <
            (gint64)channel->conn->base.heartbeat_ms * G_TIME_SPAN_MILLISECOND) {
        return true;
    }
    channel->alive_told = now;
    return endpoint_poll(channel->ep, error) && endpoint_ack(channel->ep, error);
}

bool serve_refused(RdmaChannel *channel, GError **error, const char *what)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s: %s", channel->ep->name, what);
    return false;
}

/* --- discards --- */

bool serve_chunk_registered(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    return conn->chunks.chunks[chunks_id(&conn->chunks, block, offset)].mr != NULL;
}

bool serve_check_discards(RdmaChannel *channel, ServeRegistered is_registered, GError **error)
{
    RdmaConn *conn = channel->conn;
    Discards *d = &conn->discards;
    const int any = __atomic_load_n(&d->any, __ATOMIC_ACQUIRE);

    if (any == channel->discards_seen) {
        return true;
    }
    channel->discards_seen = any;
    for (unsigned block = 0; block < d->block_count; block++) {
        for (uint64_t stripe = d->first[block]; stripe < d->first[block + 1]; stripe++) {
            const uint64_t index = stripe - d->first[block];

            if ((index + block) % conn->base.channels == channel->number &&
                discards_take(d, block, index << d->shift) &&
                is_registered(conn, block, index << d->shift)) {
                g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                            "memory of RAM block \"%s\" (at 0x%" G_GINT64_MODIFIER
                            "x) was discarded while the source writes to it by RDMA: what it wrote "
                            "is lost; a destination must not discard guest memory",
                            conn->base.blocks[block]->name, index << d->shift);
                return false;
            }
        }
    }
    return true;
}
