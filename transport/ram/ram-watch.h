/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-watch.h -- telling those who watch that guest memory was discarded */

#ifndef VMF_RAM_WATCH_H
#define VMF_RAM_WATCH_H

#include <vmferry/plugin/transport.h>

/* The watches of one set of RAM blocks. Any thread may call the functions below. */
typedef struct RamWatches {
    int count; /* atomic: length of the list */
    GRWLock lock;
    GPtrArray *list; /* RamWatch, which its adder owns; under the lock */
} RamWatches;

typedef struct RamWatch {
    VmfRamDiscarded discarded;
    void *opaque;
} RamWatch;

void ram_watches_init(RamWatches *watches);
void ram_watches_clear(RamWatches *watches);
void ram_watches_add(RamWatches *watches, RamWatch *watch);
/* After it has returned, the watch is not told any more. */
void ram_watches_remove(RamWatches *watches, RamWatch *watch);
/* Tells all watches of [offset, offset + length) of a block, cut at the block's end. */
void ram_watches_tell(RamWatches *watches, const VmfRamBlock *block, uint64_t offset,
                      uint64_t length);

#endif
