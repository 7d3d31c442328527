/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-link.c -- one queue pair with stock QEMU: messages, and whether the peer is there */

#include "v1-link.h"

#include <errno.h>

#include "v1-state.h"
#include "verbs/verbs-error.h"

/* --- messages --- */

bool v1_refuse(RdmaChannel *channel, unsigned type, GError **error, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s from %s: %s", v1_type_name(type),
                channel->conn->base.peer, text);
    return false;
}

uint8_t *v1_body(RdmaChannel *channel)
{
    uint8_t *slot = endpoint_slot(channel->ep);

    return slot ? slot + V1_HEADER_BYTES : NULL;
}

bool v1_send(RdmaChannel *channel, V1Type type, unsigned repeat, size_t body_size, GError **error)
{
    const V1Header header = {.type = type, .repeat = repeat};
    uint8_t *slot = endpoint_slot(channel->ep);

    if (!slot) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER, "%s does not take the messages sent to it",
                    channel->conn->base.peer);
        return false;
    }
    v1_header_encode(&header, body_size, slot);
    return endpoint_send_slot(channel->ep, V1_HEADER_BYTES + body_size, error);
}

bool v1_take(RdmaChannel *channel, V1Header *header, const uint8_t **body, size_t *size,
             unsigned *slot, GError **error)
{
    V1 *v1 = channel->conn->v1;
    const uint8_t *message = endpoint_take_slot(channel->ep, slot, size);

    *body = NULL;
    if (!message) {
        return true;
    }
    v1->last_heard = g_get_monotonic_time();
    if (!v1_header_decode(message, *size, header, error)) {
        g_prefix_error(error, "from %s: ", channel->conn->base.peer);
        return false;
    }
    if (header->type == V1_ERROR) {
        v1->peer_failed = true;
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER,
                    "the peer (%s) failed or was cancelled; its protocol does not say why, its own "
                    "log may",
                    channel->conn->base.peer);
        return false;
    }
    *body = message + V1_HEADER_BYTES;
    *size -= V1_HEADER_BYTES;
    return true;
}

/* --- whether the peer is there --- */

/* The write needs no key of the peer, because it writes nothing. */
bool v1_post_empty_write(RdmaChannel *channel, GError **error)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};

    return endpoint_post_writes(channel->ep, &wr, &wr, 1, 0, true, error);
}

/*
 * Whether the peer must speak next. A source that was told READY speaks next. QEMU may only speak
 * when it was asked.
 */
static bool is_peers_turn(const RdmaChannel *channel)
{
    const V1 *v1 = channel->conn->v1;

    return !v1->ready || (v1->blocks_asked && !v1->blocks_known) ||
           channel->registrar.request_count;
}

bool v1_probe(RdmaChannel *channel, GError **error)
{
    V1 *v1 = channel->conn->v1;
    Endpoint *ep = channel->ep;
    const VmfConn *base = &channel->conn->base;
    gint64 now = g_get_monotonic_time();

    if (is_peers_turn(channel) && now - v1->last_heard > V1_SILENCE_US) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "%s is there, but has said nothing for %d minutes", base->peer,
                    (int)(V1_SILENCE_US / G_TIME_SPAN_MINUTE));
        return false;
    }
    if (ep->completed >= v1->probe && ep->queue_used < ep->queue_size) {
        /*
         * A thread also wakes for a completion that it has already seen. A probe for each such
         * waking would complete, and wake the thread again.
         */
        if (now - v1->probed_at < (gint64)base->heartbeat_ms * G_TIME_SPAN_MILLISECOND) {
            return true;
        }
        v1->probe = ep->posted + 1;
        v1->probed_at = now;
        return v1_post_empty_write(channel, error);
    }
    if (now - v1->probed_at > (gint64)base->timeout_ms * G_TIME_SPAN_MILLISECOND) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "no sign of life from %s for %.1f s: the host or the link is down (the "
                    "time-out is the option timeout=)",
                    base->peer, base->timeout_ms / 1000.0);
        return false;
    }
    return true;
}

bool v1_take_events(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(conn->events, &event) == 0) {
        enum rdma_cm_event_type type = event->event;

        rdma_ack_cm_event(event);
        if (type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                        "the RDMA device %s was removed while the connection to %s was up",
                        ibv_get_device_name(conn->id->verbs->device), conn->base.peer);
            return false;
        }
        if (type == RDMA_CM_EVENT_DISCONNECTED && !conn->v1->hung_up) {
            conn->v1->hung_up = true;
            if (conn->base.role == VMF_ROLE_DESTINATION) {
                /*
                 * Messages that came before can still be taken. The flushed requests after them
                 * tell the end.
                 */
                rdma_disconnect(conn->id);
            }
        }
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot read connection events");
        return false;
    }
    return true;
}
