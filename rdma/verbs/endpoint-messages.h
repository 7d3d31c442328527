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
 * The place for the body of the next message (limits.send_bytes less the
 * header); not NULL if endpoint_can_send. Fill it, then endpoint_send.
 */
uint8_t *endpoint_body(Endpoint *ep);
/* Posts it after all that was posted before. The caller has asked endpoint_can_send. */
bool endpoint_send(Endpoint *ep, unsigned kind, unsigned flags, size_t body_size, GError **error);
/* Tells the peer what was processed when it waits for that, or soon would. */
bool endpoint_ack_if_due(Endpoint *ep, GError **error);
/* Tells it in any case, if there is a buffer for it: it shows that this side is at work. */
bool endpoint_ack(Endpoint *ep, GError **error);
/* How many messages sent are still to be dealt with by the peer. */
static inline uint32_t endpoint_unprocessed(const Endpoint *ep)
{
    return ep->sent - ep->peer_processed;
}

/*
 * The next message that endpoint_poll found; *taken is false when there is none. Its
 * memory is valid until endpoint_done, which gives the buffer back to the
 * queue pair. WIRE_ACKs are dealt with inside and never come out.
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
