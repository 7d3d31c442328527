/* SPDX-License-Identifier: BSD-2-Clause */
/* pinned.h -- guest RAM that is registered while the destination still waits for its source */

#ifndef VMF_RDMA_PINNED_H
#define VMF_RDMA_PINNED_H

#include "chunks.h"

/*
 * Pinning gigabytes takes long. So a destination that is told registration=pin-all begins in a
 * thread when it listens. The session that comes finds the RAM pinned, or waits for the rest. The
 * RAM is in a protection domain of its own. Only that session's data queue pairs are in the domain,
 * so a stranger who connects cannot write.
 */
typedef struct Pinned Pinned;

/* Begins; NULL if it cannot, which means nothing: the session registers then. */
Pinned *pinned_start(struct ibv_context *verbs, VmfRamBlocks *blocks, int access);
/* Ends it, waits, and gives everything up that was not taken. NULL is allowed. */
void pinned_free(Pinned *pinned);
/* Where queue pairs must be that its registrations are for. */
struct ibv_pd *pinned_pd(const Pinned *pinned);
/*
 * Waits until all is registered, or `cancel', and moves it into `chunks', which
 * have the same blocks in another order, and the same size.
 */
bool pinned_take(Pinned *pinned, Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                 GError **error);

#endif
