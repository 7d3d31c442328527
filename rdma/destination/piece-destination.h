/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-destination.h -- destination: pieces of device state, written in place or received */

#ifndef VMF_RDMA_PIECE_DESTINATION_H
#define VMF_RDMA_PIECE_DESTINATION_H

#include <vmferry/plugin/transport.h>
#include "verbs/endpoint-messages.h"

struct RdmaChannel;

/* The piece that arrives on a channel in messages. It belongs to the channel's thread. */
typedef struct ArrivingPiece {
    uint8_t *at;
    uint64_t left; /* bytes of the piece that have not come yet; 0: there is no piece */
} ArrivingPiece;

/*
 * VmfTransport.device_memory. If the source may not write there, all device state comes in
 * messages, which is no error.
 */
bool piece_offer_memory(VmfConn *conn, void *memory, size_t bytes, GError **error);
/* They take the three kinds of messages. The channel's thread. False with *error. */
bool piece_receive_first(struct RdmaChannel *channel, const EndpointMessage *message,
                         GError **error);
bool piece_receive_more(struct RdmaChannel *channel, const EndpointMessage *message,
                        GError **error);
bool piece_receive_written(struct RdmaChannel *channel, const EndpointMessage *message,
                           GError **error);

#endif
