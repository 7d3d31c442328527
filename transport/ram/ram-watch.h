/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-watch.h -- who is told that guest memory was discarded */

#ifndef VMF_RAM_WATCH_H
#define VMF_RAM_WATCH_H

#include <vmferry/plugin/transport.h>

/* The watches of one set of RAM blocks. Any thread may call what is below. */
typedef struct RamWatches {
    int count; /* atomic: of the list */
    GRWLock lock;
    GPtrArray *list; /* RamWatch, owned by who added it; under the lock */
} RamWatches;

typedef struct RamWatch {
    VmfRamDiscarded discarded;
    void *opaque;
} RamWatch;

void ram_watches_init(RamWatches *watches);
void ram_watches_clear(RamWatches *watches);
void ram_watches_add(RamWatches *watches, RamWatch *watch);
/* When it returns, the watch is not being told and will not be told any more. */
void ram_watches_remove(RamWatches *watches, RamWatch *watch);
/* Tells all of them of [offset, offset + length) of a block, cut at the block's end. */
void ram_watches_tell(RamWatches *watches, const VmfRamBlock *block, uint64_t offset,
                      uint64_t length);

#endif
