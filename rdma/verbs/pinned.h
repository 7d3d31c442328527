/* SPDX-License-Identifier: BSD-2-Clause */
/* pinned.h -- guest RAM that is registered while the destination still waits for its source */

#ifndef VMF_RDMA_PINNED_H
#define VMF_RDMA_PINNED_H

#include "chunks.h"

/*
 * Pinning gigabytes takes long. So a destination with registration=pin-all begins in a thread while
 * it listens. The session that comes finds the RAM pinned, or waits for the rest. The RAM is in a
 * protection domain of its own. Only that session's data queue pairs are in the domain. So a
 * stranger who connects cannot write.
 */
typedef struct Pinned Pinned;

/*
 * Starts the thread. NULL if that is impossible, which is no error. Then the session registers its
 * RAM itself.
 */
Pinned *pinned_start(struct ibv_context *verbs, VmfRamBlocks *blocks, int access);
/*
 * Ends the thread, waits for it, and gives up every registration that was not taken. NULL is
 * allowed.
 */
void pinned_free(Pinned *pinned);
/* The protection domain of its registrations. Queue pairs that use them must be in it. */
struct ibv_pd *pinned_pd(const Pinned *pinned);
/*
 * Waits until all is registered, or until `cancel'. Then moves the registrations into `chunks',
 * which must be in the same protection domain. The blocks may be in another order. If the chunk
 * size or the number of blocks differs, it registers all of `chunks' anew. False with *error.
 */
bool pinned_take(Pinned *pinned, Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                 GError **error);

#endif
