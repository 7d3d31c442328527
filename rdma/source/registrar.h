/* SPDX-License-Identifier: BSD-2-Clause */
/* registrar.h -- registration on demand on the source: requests, pin budget, eviction */

#ifndef VMF_RDMA_REGISTRAR_H
#define VMF_RDMA_REGISTRAR_H

#include <stdbool.h>
#include <stdint.h>
#include "verbs/endpoint.h"
#include "wire.h"

struct RdmaChannel;

/*
 * A request goes out when it has that many chunks. It goes out earlier when no request is
 * unanswered or little is under way.
 */
#define REGISTRAR_BATCH 16
/*
 * Requests that may be unanswered. It is half of the messages that the peer can send
 * unacknowledged.
 */
#define REGISTRAR_REQUESTS_MAX (ENDPOINT_WINDOW / 2)
/*
 * The most chunks that are wanted or asked for: a batch, and all that the requests can hold. Chunks
 * that were asked for count as well, because a refused chunk is wanted again.
 */
#define REGISTRAR_WANTED_MAX (REGISTRAR_BATCH * (REGISTRAR_REQUESTS_MAX + 1))

/* A request that was sent, and has no result yet. */
typedef struct RegisterRequest {
    unsigned count;
    WireChunk chunks[REGISTRAR_BATCH];
    int local_error[REGISTRAR_BATCH]; /* errno of this side's own registration; 0: none */
} RegisterRequest;

/*
 * Which of a channel's chunks are registered or asked for. All of it belongs to the channel's
 * thread.
 */
typedef struct Registrar {
    bool dynamic; /* chunks are registered on demand; false: all were registered before */
    WireChunk wanted[REGISTRAR_WANTED_MAX];
    unsigned wanted_count;
    RegisterRequest requests[REGISTRAR_REQUESTS_MAX]; /* a ring, oldest first */
    unsigned request_first, request_count;
    unsigned asked_count;        /* how many chunks they have together */
    uint64_t pinned, pin_budget; /* bytes of this channel's chunks; pin_budget 0: no limit */
    uint32_t oldest, newest;     /* ends of the list of ready chunks by last use; ids */
} Registrar;

void registrar_init(Registrar *registrar);
/* Whether one more chunk can be wanted now. */
bool registrar_has_room(const struct RdmaChannel *channel);
/* Puts a chunk on the list of wanted chunks. False with *error. */
bool registrar_want(struct RdmaChannel *channel, unsigned block, uint32_t index, GError **error);
/* Whether some chunk is wanted, and the dialect can ask for it now. */
bool registrar_can_send(const struct RdmaChannel *channel);
/*
 * Sends a request for wanted chunks, if the dialect can ask now. It has at most a batch, and no
 * more than the pin budget allows after evictions. The other chunks stay wanted. The caller has
 * posted the list of writes before. False with *error.
 */
bool registrar_send(struct RdmaChannel *channel, GError **error);
/* How many results the next answer must have; -1 when no request is unanswered. */
int registrar_awaited(const struct RdmaChannel *channel);
/*
 * Takes the answer to the oldest request, with a result for each of its chunks. False with *error
 * if a chunk cannot be registered.
 */
bool registrar_result(struct RdmaChannel *channel, const WireResult *results, GError **error);
/* Marks a ready chunk as the latest used one. */
void registrar_used(struct RdmaChannel *channel, uint32_t id);

#endif
