/* SPDX-License-Identifier: BSD-2-Clause */
/* writer.h -- a channel's RDMA writes on the source: window, lists, waiting for registration */

#ifndef VMF_RDMA_WRITER_H
#define VMF_RDMA_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include "chunks.h"
#include "endpoint.h"

struct RdmaChannel;

/* Writes linked into one post. */
#define WRITER_LIST_MAX 64
/* Writes on the send queue. More than any device needs to stay busy; stock QEMU has 512. */
#define WRITER_QUEUE 512
/* Ranges that may wait for the registration of their chunk. A power of two. */
#define WRITER_PENDING_MAX 512
/* A request for registration goes out when it has that many chunks, or when nothing else moves. */
#define WRITER_REGISTER_BATCH 16
/* Requests that may be unanswered: half of what the peer can send unacknowledged. */
#define WRITER_REQUESTS_MAX (ENDPOINT_WINDOW / 2)
/*
 * Chunks wanted and not answered: a batch, and all that requests can hold. Those that were asked
 * for count as well, for a refused one is wanted again.
 */
#define WRITER_WANTED_MAX (WRITER_REGISTER_BATCH * (WRITER_REQUESTS_MAX + 1))

/* Time-outs without a sign of life on a channel, if the control connection gives one. */
#define WRITER_PATIENCE 8

typedef struct PendingRange {
    uint32_t block, length;
    uint64_t offset;
} PendingRange;

/* A registration request that was sent, until its result comes. */
typedef struct RegisterRequest {
    unsigned count;
    WireChunk chunks[WRITER_REGISTER_BATCH];
    int local_error[WRITER_REGISTER_BATCH]; /* errno of this side's own registration */
} RegisterRequest;

/*
 * What a channel says to the destination besides its writes, in vmferry's own
 * messages or stock QEMU's. The channel's thread.
 */
typedef struct WriterDialect {
    unsigned register_batch; /* chunks in one request, at most WRITER_REGISTER_BATCH */
    unsigned requests_max;   /* requests unanswered, at most WRITER_REQUESTS_MAX */
    bool nop_is_message;     /* a nop needs room for a message */
    bool local_evictions;    /* the destination keeps what it registered, and is not told */
    /* Whether a request can be sent now. */
    bool (*can_request)(const struct RdmaChannel *channel);
    bool (*send_request)(struct RdmaChannel *channel, const WireRegister *request, GError **error);
    /* Asks for nothing but to be completed behind all that was posted before. */
    bool (*send_nop)(struct RdmaChannel *channel, GError **error);
    /* Takes what endpoint_poll found, answers what must be answered. */
    bool (*take_messages)(struct RdmaChannel *channel, GError **error);
    /* Sends zero ranges, if there are any, as far as that goes now without waiting. */
    bool (*post_zero)(struct RdmaChannel *channel, GError **error);
    /* Waits until all were sent; until the destination has dealt with them. */
    bool (*flush_zero)(struct RdmaChannel *channel, GError **error);
    bool (*settle_zero)(struct RdmaChannel *channel, GError **error);
    /* A waking brought nothing: is the peer there? Asks once in a heartbeat. NULL: others do. */
    bool (*probe)(struct RdmaChannel *channel, GError **error);
    /* Takes the connection's events, if these are not watched elsewhere (NULL). */
    bool (*take_events)(struct RdmaChannel *channel, GError **error);
} WriterDialect;

/* All of it belongs to the channel's thread. */
typedef struct Writer {
    const WriterDialect *dialect;
    uint64_t window;     /* this channel's share of max-inflight */
    uint64_t signal_at;  /* bytes after which a completion is asked for */
    uint64_t length_max; /* of one write */

    /* The list being built; its writes count as in flight already. */
    struct ibv_send_wr wr[WRITER_LIST_MAX];
    struct ibv_sge sge[WRITER_LIST_MAX];
    Chunk *listed_chunks[WRITER_LIST_MAX]; /* NULL: never given up while it is used */
    unsigned listed;
    uint64_t listed_bytes;

    PendingRange *pending; /* ring */
    unsigned pending_first, pending_count;
    uint64_t pending_bytes;
    unsigned pending_chunks; /* different chunks that ranges wait for */

    /* Registration. */
    bool dynamic; /* chunks are registered on demand */
    WireChunk wanted[WRITER_WANTED_MAX];
    unsigned wanted_count;
    RegisterRequest requests[WRITER_REQUESTS_MAX];
    unsigned request_first, request_count;
    unsigned asked_count;        /* chunks in them */
    uint64_t pinned, pin_budget; /* bytes of this channel's chunks; 0 = no limit */
    uint32_t oldest, newest;     /* ready chunks by last use; ids */

    /* Zero ranges. */
    uint8_t *zero_body; /* of the message being filled */
    size_t zero_bytes, zero_room;
    uint64_t zero_work;  /* bytes of RAM that it names */
    bool zero_sent;      /* some zero message went out since all were acknowledged */
    uint32_t zero_until; /* endpoint's count of sent messages right after the latest */
} Writer;

/* Whether a write of that many bytes may be posted, or listed, now. */
bool writer_has_room(const struct RdmaChannel *channel, uint32_t length);
/* Whether the last of some writes about to be posted must tell when it is complete. */
bool writer_wants_signal(const struct RdmaChannel *channel, unsigned requests, uint64_t bytes);

void writer_init(struct RdmaChannel *channel);
void writer_clear(struct RdmaChannel *channel);

/*
 * Reaps completions and messages, posts what became possible. Never sleeps.
 */
bool writer_progress(struct RdmaChannel *channel, GError **error);
/*
 * writer_progress; if that found nothing, sleeps until something completes or
 * arrives, wake_fd (or -1) is readable (*woken), or timeout_ms pass (-1: no limit).
 */
bool writer_sleep(struct RdmaChannel *channel, int timeout_ms, int wake_fd, bool *woken,
                  GError **error);

/* Queues a range of at most length_max bytes within one chunk. */
bool writer_add(struct RdmaChannel *channel, unsigned block, uint64_t offset, uint32_t length,
                GError **error);
/* Posts the list, sends the registration request if any. */
bool writer_push(struct RdmaChannel *channel, GError **error);
/* Waits until every range was posted (not: completed). */
bool writer_post_all(struct RdmaChannel *channel, GError **error);
/* Waits until something completed or arrived; nothing for the session's time-out is an error. */
bool writer_await_progress(struct RdmaChannel *channel, GError **error);
/* Waits until all that was posted is complete; some completion must be on its way. */
bool writer_drain(struct RdmaChannel *channel, GError **error);
/* Whether any of the range waits for its chunk. */
bool writer_is_pending(const struct RdmaChannel *channel, unsigned block, uint64_t offset,
                       uint64_t length);
/* Waits until the endpoint takes a counted message. */
bool writer_await_send(struct RdmaChannel *channel, GError **error);
/*
 * Sees to it that some completion comes: if none of what is in flight asked for one, nothing
 * would ever tell. Where there is no room to ask, something else will come.
 */
bool writer_ask_for_completion(struct RdmaChannel *channel, GError **error);
/* Posts the list that was built. */
bool writer_post_list(struct RdmaChannel *channel, GError **error);

/* --- registrar.c --- */
/* Whether one more chunk can be wanted now. */
bool registrar_has_room(const struct RdmaChannel *channel);
/* Sees to it that a chunk will become ready. */
bool registrar_want(struct RdmaChannel *channel, unsigned block, uint32_t index, GError **error);
/*
 * Sends the request being built, as far as credits, answers outstanding and the
 * pin budget (after evictions) allow now; the rest stays wanted.
 */
bool registrar_send(struct RdmaChannel *channel, GError **error);
/* The answer to the oldest request, with a result for each of its chunks. */
bool registrar_result(struct RdmaChannel *channel, const WireResult *results, GError **error);
/* How many results that must be; -1 when there is no request. */
int registrar_awaited(const struct RdmaChannel *channel);
/* Marks a ready chunk as the latest used. */
void registrar_used(struct RdmaChannel *channel, uint32_t id);

#endif
