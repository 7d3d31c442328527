/* SPDX-License-Identifier: BSD-2-Clause */
/* registrar.h -- registration on demand on the source: requests ahead, budget, eviction */

#ifndef VMF_RDMA_REGISTRAR_H
#define VMF_RDMA_REGISTRAR_H

#include <stdbool.h>
#include <stdint.h>
#include "verbs/endpoint.h"
#include "wire.h"

struct RdmaChannel;

/* A request for registration goes out when it has that many chunks, or when nothing else moves. */
#define REGISTRAR_BATCH 16
/* Requests that may be unanswered: half of what the peer can send unacknowledged. */
#define REGISTRAR_REQUESTS_MAX (ENDPOINT_WINDOW / 2)
/*
 * Chunks wanted and not answered: a batch, and all that requests can hold. Those that were asked
 * for count as well, because a refused one is wanted again.
 */
#define REGISTRAR_WANTED_MAX (REGISTRAR_BATCH * (REGISTRAR_REQUESTS_MAX + 1))

/* A request that was sent, until its result comes. */
typedef struct RegisterRequest {
    unsigned count;
    WireChunk chunks[REGISTRAR_BATCH];
    int local_error[REGISTRAR_BATCH]; /* errno of this side's own registration */
} RegisterRequest;

/* Which of a channel's chunks are registered or asked for. All of it is the channel's thread's. */
typedef struct Registrar {
    bool dynamic; /* chunks are registered on demand; else all were at set-up */
    WireChunk wanted[REGISTRAR_WANTED_MAX];
    unsigned wanted_count;
    RegisterRequest requests[REGISTRAR_REQUESTS_MAX]; /* ring, oldest first */
    unsigned request_first, request_count;
    unsigned asked_count;        /* chunks in them */
    uint64_t pinned, pin_budget; /* bytes of this channel's chunks; 0 = no limit */
    uint32_t oldest, newest;     /* ready chunks by last use; ids */
} Registrar;

void registrar_init(Registrar *registrar);
/* Whether one more chunk can be wanted now. */
bool registrar_has_room(const struct RdmaChannel *channel);
/* Sees to it that a chunk will become ready. */
bool registrar_want(struct RdmaChannel *channel, unsigned block, uint32_t index, GError **error);
/* Whether there is something to ask for, and the dialect can ask now. */
bool registrar_can_send(const struct RdmaChannel *channel);
/*
 * Sends the request being built, as far as credits, answers outstanding and the pin budget (after
 * evictions) allow now; the rest stays wanted. No write is listed: each is posted before.
 */
bool registrar_send(struct RdmaChannel *channel, GError **error);
/* How many results the next answer must have; -1 when there is no request. */
int registrar_awaited(const struct RdmaChannel *channel);
/* The answer to the oldest request, with a result for each of its chunks. */
bool registrar_result(struct RdmaChannel *channel, const WireResult *results, GError **error);
/* Marks a ready chunk as the latest used. */
void registrar_used(struct RdmaChannel *channel, uint32_t id);

#endif
