/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-state.h -- what only a connection with stock QEMU has
 *
 * The protocol is that of stock QEMU's rdma:, version 1. Its files here, from the bottom up:
 *
 *   v1-wire.c         messages, encoded and decoded
 *   v1-regions.c      what the destination registers for the source's chunks
 *   v1-state.c        the state
 *   v1-link.c         the one queue pair: messages, probes, events
 *   v1-back.c         the return path, a connection of its own with a thread of its own
 *   v1-source.c       this side is the source
 *   v1-destination.c  this side is the destination
 *   v1-table.c        the transport's table of such a connection: its beginning and its end
 *
 * RAM goes by the same write queue and the same registrar as between two vmferrys. v1-source.c only
 * encodes their requests differently. Everything belongs to channel 0's thread, or to the session's
 * thread before that one runs. Only the return path belongs to its own thread.
 */
#ifndef VMF_RDMA_V1_STATE_H
#define VMF_RDMA_V1_STATE_H

#include "rdma-conn.h"
#include "v1-regions.h"

typedef struct V1 {
    bool pin_all;
    bool peer_failed;  /* the peer has said ERROR, so it need not be told */
    bool hung_up;      /* the DISCONNECTED of the peer has come */
    bool hooked;       /* messages are about RAM, and carry no stream */
    bool blocks_known; /* RAM_BLOCKS_RESULT has come or was sent */
    gint64 last_heard;
    int greeted;    /* source, atomic: READY has come at least once */
    uint64_t probe; /* a probe is unanswered until the endpoint has completed that many requests */
    gint64 probed_at;

    /* Source. */
    bool ready; /* the destination has said READY, so one message may be sent */
    bool blocks_asked;
    uint64_t *offsets; /* of each block, in the destination's address space */
    uint8_t *stage;    /* V1_MESSAGE_MAX bytes: a QEMU_FILE message that grows until it is sent */
    struct ibv_mr *stage_mr;
    size_t staged;        /* bytes in it, without the header */
    gint64 staged_at;     /* when the latest bytes came */
    uint64_t stage_until; /* stage may be written again when that many requests are completed */

    /* Destination. */
    /*
     * The first message, which shows whether the peer means to migrate. It is kept until it is
     * handled; NULL after that.
     */
    const uint8_t *message;
    unsigned message_slot;
    size_t message_size;
    uint64_t *starts;   /* of each block, in the address space that this side tells the source */
    V1Regions *regions; /* NULL with pin-all */

    /* The return path. */
    struct rdma_event_channel *back_events;
    bool back_ready; /* destination: the source has said READY on it */
} V1;

/*
 * Makes the state of a connection. From here on, the connection's calls go by `ops'. The connection
 * owns the state.
 */
V1 *v1_new(RdmaConn *conn, bool pin_all, const VmfTransport *ops);
/* Frees the state. NULL is allowed. */
void v1_free(V1 *v1);
/* Source: undoes v1_new before another address is tried. Does nothing without a state. */
void v1_forget(RdmaConn *conn);

#endif
