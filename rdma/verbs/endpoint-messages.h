/* SPDX-License-Identifier: BSD-2-Clause */
/* endpoint-messages.h -- vmferry's messages over a queue pair: headers and credits */

#ifndef VMF_RDMA_ENDPOINT_MESSAGES_H
#define VMF_RDMA_ENDPOINT_MESSAGES_H

#include "endpoint.h"
#include "wire.h"

/*
 * Every message but WIRE_ACK is counted. A sender has at most ENDPOINT_WINDOW counted messages out
 * that the receiver has not dealt with.
 */

/* Whether endpoint_send can take a counted message now. */
bool endpoint_can_send(const Endpoint *ep);
/*
 * The place for the body of the next message. It has limits.send_bytes less the header. It is not
 * NULL if endpoint_can_send is true. The caller fills it, and then calls endpoint_send.
 */
uint8_t *endpoint_body(Endpoint *ep);
/*
 * Posts the message after all that was posted before. The caller must have asked endpoint_can_send.
 * False with *error.
 */
bool endpoint_send(Endpoint *ep, unsigned kind, unsigned flags, size_t body_size, GError **error);
/* Tells the peer how many messages were processed, if the peer waits for that or soon will. */
bool endpoint_ack_if_due(Endpoint *ep, GError **error);
/*
 * Tells the peer in any case, if there is a slot for the message. The peer sees that this side is
 * at work.
 */
bool endpoint_ack(Endpoint *ep, GError **error);
/* How many of the counted messages sent the peer has not dealt with yet. */
static inline uint32_t endpoint_unprocessed(const Endpoint *ep)
{
    return ep->sent - ep->peer_processed;
}

/*
 * The next message that endpoint_poll found. If there is none, *taken is false. The memory of the
 * message is valid until endpoint_done, which gives the buffer back to the queue pair.
 * endpoint_take handles WIRE_ACKs itself, and never returns one.
 */
typedef struct EndpointMessage {
    WireHeader header;
    const uint8_t *body;
    size_t size;
    unsigned slot;
} EndpointMessage;
bool endpoint_take(Endpoint *ep, EndpointMessage *message, bool *taken, GError **error);
bool endpoint_done(Endpoint *ep, const EndpointMessage *message, GError **error);

#endif
