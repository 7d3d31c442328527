/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-source.h -- source: pieces of device state, written where they belong or sent in messages
 */

#ifndef VMF_RDMA_PIECE_SOURCE_H
#define VMF_RDMA_PIECE_SOURCE_H

#include <vmferry/plugin/transport.h>
#include "verbs/verbs.h"

struct RdmaChannel;
struct RdmaConn;

/* Pieces that are being written at a time. */
#define PIECES_MAX 8

/* A piece that is being written, and so registered. */
typedef struct WrittenPiece {
    struct ibv_mr *mr;
    uint64_t request; /* done when the endpoint has completed that many */
    void *piece;      /* the engine's */
} WrittenPiece;

/* A channel's, oldest first. The channel's thread. */
typedef struct PieceRing {
    WrittenPiece pieces[PIECES_MAX];
    unsigned first, count;
} PieceRing;

/* VmfTransport.send_device. */
bool piece_send(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, const void *data,
                void *piece, GError **error);
/* Gives back the pieces that are written. */
void piece_reap(struct RdmaChannel *channel);
/* The queue pair is gone: gives up every registration. */
void piece_clear(struct RdmaChannel *channel);
/* A WIRE_PRIVATE_DEVICE_MEMORY came: where pieces may be written. The control thread. */
bool piece_take_memory(struct RdmaConn *conn, const uint8_t *data, size_t size, GError **error);

#endif
