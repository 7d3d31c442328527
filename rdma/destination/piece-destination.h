/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-destination.h -- destination: pieces of device state, which arrive written or in messages
 */

#ifndef VMF_RDMA_PIECE_DESTINATION_H
#define VMF_RDMA_PIECE_DESTINATION_H

#include <vmferry/plugin/transport.h>
#include "verbs/endpoint-messages.h"

struct RdmaChannel;

/* The piece that is arriving on a channel in messages. The channel's thread. */
typedef struct ArrivingPiece {
    uint8_t *at;
    uint64_t left; /* bytes of it to come; 0: there is none */
} ArrivingPiece;

/* VmfTransport.device_memory. */
bool piece_offer_memory(VmfConn *conn, void *memory, size_t bytes, GError **error);
/* The three kinds of messages. */
bool piece_receive_first(struct RdmaChannel *channel, const EndpointMessage *message,
                         GError **error);
bool piece_receive_more(struct RdmaChannel *channel, const EndpointMessage *message,
                        GError **error);
bool piece_receive_written(struct RdmaChannel *channel, const EndpointMessage *message,
                           GError **error);

#endif
