/* SPDX-License-Identifier: BSD-2-Clause */
/* endpoint-messages.c -- vmferry's messages over a queue pair: headers and credits */

#include "endpoint-messages.h"

#include <vmferry/error.h>

/* --- sending --- */

bool endpoint_can_send(const Endpoint *ep)
{
    return endpoint_unprocessed(ep) < ENDPOINT_WINDOW && ep->slots_used < ENDPOINT_SEND_SLOTS &&
           ep->queue_used < ep->queue_size;
}

uint8_t *endpoint_body(Endpoint *ep)
{
    uint8_t *slot = endpoint_slot(ep);

    return slot ? slot + WIRE_HEADER_BYTES : NULL;
}

static bool post_message(Endpoint *ep, unsigned kind, unsigned flags, size_t body_size,
                         GError **error)
{
    WireHeader header = {.kind = kind, .flags = flags, .processed = ep->processed};
    uint8_t *slot = endpoint_slot(ep);

    if (!slot) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "%s: no place for a message", ep->name);
        return false;
    }
    wire_header_encode(&header, slot);
    if (!endpoint_send_slot(ep, WIRE_HEADER_BYTES + body_size, error)) {
        return false;
    }
    ep->processed_told = ep->processed;
    ep->ack_now = false;
    return true;
}

bool endpoint_send(Endpoint *ep, unsigned kind, unsigned flags, size_t body_size, GError **error)
{
    if (!post_message(ep, kind, flags, body_size, error)) {
        return false;
    }
    ep->sent++;
    return true;
}

bool endpoint_ack(Endpoint *ep, GError **error)
{
    if (ep->slots_used == ENDPOINT_SEND_SLOTS || ep->queue_used == ep->queue_size || ep->flushed) {
        return true; /* a slot becomes free by itself, and the next call sends it */
    }
    return post_message(ep, WIRE_ACK, 0, 0, error);
}

/*
 * WIRE_ACKs use no credit. So the peer must have buffers for all of them that can be unread. The
 * peer causes one for every half window that it sends. It causes one more by WIRE_ACK_NOW, of which
 * it has at most one unanswered. Together these are far fewer than ENDPOINT_SPARE. Signs of life
 * come once in a heartbeat. If the peer reads none of them for long, the device waits for a buffer,
 * which is no error.
 */
bool endpoint_ack_if_due(Endpoint *ep, GError **error)
{
    if (!ep->ack_now && ep->processed - ep->processed_told < ENDPOINT_WINDOW / 2) {
        return true;
    }
    return endpoint_ack(ep, error);
}

/* --- receiving --- */

static bool decode_message(Endpoint *ep, const uint8_t *data, size_t size, EndpointMessage *message,
                           GError **error)
{
    uint32_t newly;

    if (!wire_header_decode(data, size, &message->header, error)) {
        g_prefix_error(error, "%s: ", ep->name);
        return false;
    }
    newly = message->header.processed - ep->peer_processed;
    if (newly > endpoint_unprocessed(ep)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%s: the peer acknowledges %u messages, %u are out", ep->name, newly,
                    endpoint_unprocessed(ep));
        return false;
    }
    ep->peer_processed = message->header.processed;
    message->body = data + WIRE_HEADER_BYTES;
    message->size = size - WIRE_HEADER_BYTES;
    return true;
}

bool endpoint_take(Endpoint *ep, EndpointMessage *message, bool *taken, GError **error)
{
    const uint8_t *data;
    size_t size;

    *taken = false;
    while ((data = endpoint_take_slot(ep, &message->slot, &size))) {
        if (!decode_message(ep, data, size, message, error)) {
            return false;
        }
        if (message->header.kind != WIRE_ACK) {
            *taken = true;
            return true;
        }
        if (!endpoint_give_back(ep, message->slot, error)) {
            return false;
        }
    }
    return true;
}

bool endpoint_done(Endpoint *ep, const EndpointMessage *message, GError **error)
{
    if (!endpoint_give_back(ep, message->slot, error)) {
        return false;
    }
    ep->processed++;
    if (message->header.flags & WIRE_ACK_NOW) {
        ep->ack_now = true;
    }
    return true;
}
