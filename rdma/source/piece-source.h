/* SPDX-License-Identifier: BSD-2-Clause */
/* piece-source.h -- source: pieces of device state, written in place or sent in messages */

#ifndef VMF_RDMA_PIECE_SOURCE_H
#define VMF_RDMA_PIECE_SOURCE_H

#include <vmferry/plugin/transport.h>
#include "verbs/verbs.h"

struct RdmaChannel;
struct RdmaConn;

/* How many pieces may be under way as writes at a time. */
#define PIECES_MAX 8

/* A piece that is under way as writes, and so is registered. */
typedef struct WrittenPiece {
    struct ibv_mr *mr;
    uint64_t request; /* the piece is written when the endpoint has completed that many requests */
    void *piece;      /* the engine's handle of the piece */
} WrittenPiece;

/* The pieces of a channel, oldest first. They belong to the channel's thread. */
typedef struct PieceRing {
    WrittenPiece pieces[PIECES_MAX];
    unsigned first, count;
} PieceRing;

/* VmfTransport.send_device. */
bool piece_send(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, const void *data,
                void *piece, GError **error);
/* Gives the engine back every piece whose writes are complete. */
void piece_reap(struct RdmaChannel *channel);
/* Gives up every registration, after the queue pair is gone. */
void piece_clear(struct RdmaChannel *channel);
/*
 * Takes a WIRE_PRIVATE_DEVICE_MEMORY, which says where pieces may be written. The control thread.
 */
bool piece_take_memory(struct RdmaConn *conn, const uint8_t *data, size_t size, GError **error);

#endif
