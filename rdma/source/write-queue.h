/* SPDX-License-Identifier: BSD-2-Clause */
/* write-queue.h -- a channel's RDMA writes on the source: window, lists, waiting for chunks */

#ifndef VMF_RDMA_WRITE_QUEUE_H
#define VMF_RDMA_WRITE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include "verbs/chunks.h"

struct RdmaChannel;

/* Writes linked into one post. */
#define WRITE_QUEUE_LIST_MAX 64
/* Writes on the send queue. More than any device needs to stay busy; stock QEMU has 512. */
#define WRITE_QUEUE_REQUESTS 512
/* Ranges that may wait for the registration of their chunk. A power of two. */
#define WRITE_QUEUE_PENDING_MAX 512

/* Time-outs without a sign of life on a channel, if the control connection gives one. */
#define WRITE_QUEUE_PATIENCE 8

typedef struct PendingRange {
    uint32_t block, length;
    uint64_t offset;
} PendingRange;

/* All of it belongs to the channel's thread. */
typedef struct WriteQueue {
    uint64_t window;     /* this channel's share of max-inflight */
    uint64_t signal_at;  /* bytes after which a completion is asked for: a quarter of it */
    uint64_t length_max; /* of one write: a quarter of it */

    /* The list being built; its writes count as in flight already. */
    struct ibv_send_wr wr[WRITE_QUEUE_LIST_MAX];
    struct ibv_sge sge[WRITE_QUEUE_LIST_MAX];
    Chunk *listed_chunks[WRITE_QUEUE_LIST_MAX]; /* NULL: never given up while it is used */
    unsigned listed;
    uint64_t listed_bytes;

    PendingRange *pending; /* ring */
    unsigned pending_first, pending_count;
    uint64_t pending_bytes;
    unsigned pending_chunks; /* different chunks that ranges wait for */

    /* Called when something may have completed, because others post writes, too; or NULL. */
    void (*reap)(struct RdmaChannel *channel);
} WriteQueue;

/* Makes the queue of a channel that has its endpoint. */
void write_queue_init(struct RdmaChannel *channel);
void write_queue_clear(WriteQueue *queue);

/* --- posting, which never waits --- */

/* Whether a write of that many bytes may be posted, or listed, now. */
bool write_queue_has_room(const struct RdmaChannel *channel, uint32_t length);
/* Whether the last of some writes about to be posted must tell when it is complete. */
bool write_queue_wants_signal(const struct RdmaChannel *channel, unsigned requests, uint64_t bytes);
/* Posts the list that was built. */
bool write_queue_post_list(struct RdmaChannel *channel, GError **error);
/* Sends the registration request being built, if one can go now, and before it what must. */
bool write_queue_register(struct RdmaChannel *channel, GError **error);
/* Posts the list, sends the registration request if it is due. */
bool write_queue_push(struct RdmaChannel *channel, GError **error);
/* Whether any of the range waits for its chunk. */
bool write_queue_is_pending(const struct RdmaChannel *channel, unsigned block, uint64_t offset,
                            uint64_t length);
/* Reaps completions and messages, posts what became possible. */
bool write_queue_progress(struct RdmaChannel *channel, GError **error);

/* --- waiting --- */

/*
 * write_queue_progress; if that found nothing, sleeps until something completes or
 * arrives, wake_fd (or -1) is readable (*woken), or timeout_ms pass (-1: no limit).
 */
bool write_queue_sleep(struct RdmaChannel *channel, int timeout_ms, int wake_fd, bool *woken,
                       GError **error);
/* Waits until something completed or arrived; nothing for the session's time-out is an error. */
bool write_queue_await_progress(struct RdmaChannel *channel, GError **error);
/* Waits until the endpoint takes a counted message. */
bool write_queue_await_send(struct RdmaChannel *channel, GError **error);
/* Queues a range of at most length_max bytes within one chunk; waits for room. */
bool write_queue_add(struct RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                     GError **error);
/* Waits until every range was posted (not: completed). */
bool write_queue_post_all(struct RdmaChannel *channel, GError **error);
/* Waits until all that was posted is complete. */
bool write_queue_drain(struct RdmaChannel *channel, GError **error);

#endif
