/* SPDX-License-Identifier: BSD-2-Clause */
/* endpoint.h -- one queue pair with its completion queue and message buffers */

#ifndef VMF_RDMA_ENDPOINT_H
#define VMF_RDMA_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <gio/gio.h>
#include "verbs.h"

/* How many counted messages the receiver may have unprocessed (see endpoint-messages.h). */
#define ENDPOINT_WINDOW 16
/* Buffers beyond the window for WIRE_ACKs, which are not counted. See endpoint_ack_if_due. */
#define ENDPOINT_SPARE 8
#define ENDPOINT_RECEIVES (ENDPOINT_WINDOW + ENDPOINT_SPARE)
#define ENDPOINT_SEND_SLOTS 8

typedef struct EndpointLimits {
    size_t send_bytes;    /* of one message to send, with its header */
    size_t receive_bytes; /* of one message to receive */
    unsigned writes;      /* RDMA writes that may be posted at a time, besides messages */
    unsigned receives;    /* receives posted at a time; 0: ENDPOINT_RECEIVES, which is the most */
} EndpointLimits;

/*
 * The work requests that one signalled completion reports. It reports every request since the
 * signalled one before it.
 */
typedef struct EndpointBatch {
    uint32_t requests; /* send queue entries it frees */
    uint32_t slots;    /* send slots among them */
    uint64_t bytes;    /* of RDMA writes among them */
} EndpointBatch;

/*
 * All of it belongs to one thread. That is the control thread or the channel's thread. Before those
 * run, it is the thread of the session.
 */
typedef struct Endpoint {
    struct rdma_cm_id *id;
    struct ibv_qp *qp;
    struct ibv_cq *cq;
    struct ibv_comp_channel *completions;
    char name[48]; /* "control connection" or "channel 3", for messages */
    EndpointLimits limits;

    uint8_t *memory; /* send slots, then receive slots */
    size_t memory_bytes;
    struct ibv_mr *mr;

    /* Sending. Slots are used in a ring, because the send queue completes in order. */
    unsigned slot_next, slots_used;

    /* The send queue. */
    unsigned queue_size, queue_used;
    EndpointBatch open; /* requests since the latest signalled one */
    EndpointBatch *batches;
    unsigned batch_first, batch_count;
    uint64_t inflight_bytes;
    uint64_t posted, completed; /* requests since the start */

    /* Receiving. */
    unsigned ready[ENDPOINT_RECEIVES]; /* slots with a message that is not taken, oldest first */
    uint32_t ready_bytes[ENDPOINT_RECEIVES];
    unsigned ready_first, ready_count;
    unsigned receives_posted;

    /* Flow control of vmferry's messages, see endpoint-messages.h. Unused with stock QEMU. */
    uint32_t sent;           /* counted messages */
    uint32_t peer_processed; /* how many of them the peer has dealt with */
    uint32_t processed;      /* counted messages that this side has dealt with */
    uint32_t processed_told; /* the latest value that was sent */
    bool ack_now;            /* the peer waits for an acknowledgement */

    unsigned events_unacked;
    gint64 quiet_at; /* after take-down: the time until which requests may come back; 0: it is up */
    bool flushed;    /* a completion said that the queue pair is in the error state */
    uint64_t progress; /* counts completions, to see whether anything moved */
} Endpoint;

/*
 * Makes the queue pair on `id' (connected or to be), registers the buffers and posts every receive.
 * `id' and `pd' stay the caller's. NULL with *error.
 */
Endpoint *endpoint_new(struct rdma_cm_id *id, struct ibv_pd *pd, const EndpointLimits *limits,
                       const char *name, GError **error);
/*
 * Destroys the queue pair, the queues and the buffers. `id' stays the caller's. NULL is allowed.
 * The queue pair is taken down first. After that, the device gets a moment to hand back what was
 * posted. So nothing is destroyed while the device uses it.
 */
void endpoint_free(Endpoint *ep);
/*
 * The first half of endpoint_free. A caller that frees several endpoints calls it for each of them
 * first. Then all of them share one moment. NULL is allowed, and a second call.
 */
void endpoint_take_down(Endpoint *ep);
size_t endpoint_own_bytes(const Endpoint *ep);

/*
 * Reaps completions without waiting. A failed completion is an error. A completion that a dead
 * queue pair flushes sets ep->flushed instead. The caller decides what that means.
 */
bool endpoint_poll(Endpoint *ep, GError **error);

/* Descriptors that end a sleep when they are readable; -1: none. */
typedef struct EndpointWakers {
    int cancel;   /* the session's: the session has failed or ends */
    int wake;     /* another thread wants this one to look at something */
    int events;   /* rdma_cm's events of the connection */
    int listener; /* rdma_cm's events of the listener */
} EndpointWakers;

/* Which of the descriptors were readable. */
#define ENDPOINT_WOKE_CANCEL 1u
#define ENDPOINT_WOKE_WAKE 2u
#define ENDPOINT_WOKE_EVENTS 4u
#define ENDPOINT_WOKE_LISTENER 8u

/*
 * Polls for up to spin_us. Then sleeps until a completion may be there, one of the descriptors is
 * readable, or timeout_ms pass (-1: no limit). Returns at once when endpoint_poll would find
 * something. It may also return early with nothing, and the caller looks again. So an event that
 * the kernel lost costs a second at most. *woke is the sum of ENDPOINT_WOKE_* bits. False with
 * *error.
 */
bool endpoint_sleep(Endpoint *ep, const EndpointWakers *wakers, int timeout_ms, unsigned spin_us,
                    unsigned *woke, GError **error);

/* --- messages; a protocol adds its headers and flow control --- */

/*
 * The place for the next message, of limits.send_bytes. NULL while every slot is used or the send
 * queue is full.
 */
uint8_t *endpoint_slot(Endpoint *ep);
/* Posts the message in that place, after all that was posted before. */
bool endpoint_send_slot(Endpoint *ep, size_t size, GError **error);
/*
 * Posts a message from registered memory of the caller. The caller must not change the memory until
 * the request is completed.
 */
bool endpoint_send_memory(Endpoint *ep, const void *data, size_t size, uint32_t lkey,
                          GError **error);
/*
 * The next message that endpoint_poll found; NULL when there is none. It is valid until
 * endpoint_give_back.
 */
const uint8_t *endpoint_take_slot(Endpoint *ep, unsigned *slot, size_t *size);
/* Posts the slot of a message as a receive again. Does nothing once the queue pair is flushed. */
bool endpoint_give_back(Endpoint *ep, unsigned slot, GError **error);

/* --- RDMA writes --- */

/* How many more writes the send queue takes. Room for messages is kept in reserve. */
unsigned endpoint_write_room(const Endpoint *ep);
/*
 * Posts `count' linked writes with one doorbell, of `bytes' in all. With `signal' the last one
 * gives a completion. That completion covers all that was posted before.
 */
bool endpoint_post_writes(Endpoint *ep, struct ibv_send_wr *first, struct ibv_send_wr *last,
                          unsigned count, uint64_t bytes, bool signal, GError **error);

#endif
