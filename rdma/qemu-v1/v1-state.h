/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-state.h -- what a connection with stock QEMU has besides
 *
 * The protocol is stock QEMU's rdma:, version 1. Its files here, from the bottom up:
 *
 *   v1-wire.c         messages, encoded and decoded
 *   v1-regions.c      what the destination registers for the source's chunks
 *   v1-state.c        the state
 *   v1-link.c         the one queue pair: messages, READY, whether the peer is there
 *   v1-back.c         the return path, a connection of its own with a thread of its own
 *   v1-source.c       this side is the source
 *   v1-destination.c  this side is the destination
 *   v1-table.c        the transport's table of such a connection: its beginning and its end
 *
 * RAM goes by the same write queue and the same registrar as between two vmferrys;
 * v1-source.c only spells their requests otherwise. Everything is one thread's:
 * channel 0's, or the session's before that runs, but for the return path.
 */
#ifndef VMF_RDMA_V1_STATE_H
#define VMF_RDMA_V1_STATE_H

#include "conn.h"
#include "v1-regions.h"

typedef struct V1 {
    bool pin_all;
    bool peer_failed;  /* it has said ERROR: it need not be told */
    bool hung_up;      /* its DISCONNECTED has come */
    bool hooked;       /* messages are RAM's, not the stream's */
    bool blocks_known; /* RAM_BLOCKS_RESULT has come, or was sent */
    gint64 last_heard;
    int greeted;    /* atomic: READY has come once */
    uint64_t probe; /* outstanding if the endpoint has not completed that many requests */
    gint64 probed_at;

    /* Source. */
    bool ready; /* D has said READY: one message may be sent */
    bool blocks_asked;
    uint64_t *offsets; /* of each block, in D's address space */
    uint8_t *stage;    /* V1_MESSAGE_MAX bytes: a QEMU_FILE message that grows until it goes */
    struct ibv_mr *stage_mr;
    size_t staged;        /* bytes in it, the header not counted */
    gint64 staged_at;     /* when the last came */
    uint64_t stage_until; /* it may be written again when that many requests are completed */

    /* Destination. */
    /* The first message, taken to see whether the peer is in earnest, until it is handled. */
    const uint8_t *message;
    unsigned message_slot;
    size_t message_size;
    uint64_t *starts;   /* of each block, in the address space that this side names to S */
    V1Regions *regions; /* not with pin-all */

    /* The return path. */
    struct rdma_event_channel *back_events;
    bool back_ready; /* destination: S has said READY on it */
} V1;

/* Makes the state of a connection whose calls go by `ops' from here on. */
V1 *v1_new(RdmaConn *conn, bool pin_all, const VmfTransport *ops);
/* NULL is allowed. */
void v1_free(V1 *v1);
/* Source: undoes v1_new, before another address is tried. */
void v1_forget(RdmaConn *conn);

#endif
