/* SPDX-License-Identifier: BSD-2-Clause */
/* write-queue.h -- a channel's RDMA writes on the source: window, lists, waiting for chunks */

#ifndef VMF_RDMA_WRITE_QUEUE_H
#define VMF_RDMA_WRITE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include "verbs/chunks.h"

struct RdmaChannel;

/* The most writes that are linked into one post. */
#define WRITE_QUEUE_LIST_MAX 64
/* Writes on the send queue. No device needs more to stay busy, and stock QEMU has as many. */
#define WRITE_QUEUE_REQUESTS 512
/* How many ranges may wait for the registration of their chunk. A power of two. */
#define WRITE_QUEUE_PENDING_MAX 512

/*
 * How many time-outs a channel may be silent while the control connection shows that the peer
 * lives.
 */
#define WRITE_QUEUE_PATIENCE 8

typedef struct PendingRange {
    uint32_t block, length;
    uint64_t offset;
} PendingRange;

/* All of it belongs to the channel's thread. */
typedef struct WriteQueue {
    uint64_t window;     /* this channel's share of max-inflight */
    uint64_t signal_at;  /* bytes after which a completion is asked for: a quarter of the window */
    uint64_t length_max; /* the most bytes of one write: a quarter of the window */

    /* The list of writes to post next. They count against the window already. */
    struct ibv_send_wr wr[WRITE_QUEUE_LIST_MAX];
    struct ibv_sge sge[WRITE_QUEUE_LIST_MAX];
    Chunk *listed_chunks[WRITE_QUEUE_LIST_MAX]; /* NULL: a chunk that is never given up */
    unsigned listed;
    uint64_t listed_bytes;

    PendingRange *pending; /* ring */
    unsigned pending_first, pending_count;
    uint64_t pending_bytes;
    unsigned pending_chunks; /* how many chunks the ranges wait for */

    /* Called when something may have completed, because other code posts writes, too; or NULL. */
    void (*reap)(struct RdmaChannel *channel);
} WriteQueue;

/* Makes the queue of a channel that has its endpoint. */
void write_queue_init(struct RdmaChannel *channel);
/* Frees the queue's memory. The queue pair is down. */
void write_queue_clear(WriteQueue *queue);

/* --- posting, which never waits --- */

/* Whether a write of that many bytes may be posted or listed now. */
bool write_queue_has_room(const struct RdmaChannel *channel, uint32_t length);
/* Whether the last of some writes that are posted next must give a completion. */
bool write_queue_wants_signal(const struct RdmaChannel *channel, unsigned requests, uint64_t bytes);
/* Posts the list of writes. False with *error, as for all below. */
bool write_queue_post_list(struct RdmaChannel *channel, GError **error);
/*
 * Sends a registration request for the wanted chunks, if one can go now. Posts the list of writes
 * and the zero ranges before it.
 */
bool write_queue_register(struct RdmaChannel *channel, GError **error);
/* Posts the list, and sends a registration request if one is due. */
bool write_queue_push(struct RdmaChannel *channel, GError **error);
/* Whether any byte of the range waits for its chunk. */
bool write_queue_is_pending(const struct RdmaChannel *channel, unsigned block, uint64_t offset,
                            uint64_t length);
/* Reaps completions and takes messages. Then posts what became possible. */
bool write_queue_progress(struct RdmaChannel *channel, GError **error);

/* --- waiting --- */

/*
 * Calls write_queue_progress. If that found nothing, sleeps until something completes or arrives,
 * until wake_fd (or -1) is readable, or until timeout_ms pass (-1: no limit). *woken says whether
 * wake_fd was readable. Cancellation is an error.
 */
bool write_queue_sleep(struct RdmaChannel *channel, int timeout_ms, int wake_fd, bool *woken,
                       GError **error);
/*
 * Waits until something has completed or arrived. Silence for the time-out of the session is an
 * error. If only the peer's process owes something and the control connection is alive, the limit
 * is WRITE_QUEUE_PATIENCE time-outs.
 */
bool write_queue_await_progress(struct RdmaChannel *channel, GError **error);
/* Waits until the endpoint takes a counted message. */
bool write_queue_await_send(struct RdmaChannel *channel, GError **error);
/*
 * Lists a write of at most length_max bytes in one chunk, or lets it wait for its chunk. Waits for
 * room.
 */
bool write_queue_add(struct RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                     GError **error);
/* Waits until every range is posted. It does not wait for completions. */
bool write_queue_post_all(struct RdmaChannel *channel, GError **error);
/* Waits until all that was posted is complete. */
bool write_queue_drain(struct RdmaChannel *channel, GError **error);

#endif
