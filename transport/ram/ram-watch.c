/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-watch.c -- who is told that memory of a set of RAM blocks was discarded */

#include "ram-blocks.h"

#include <vmferry/plugin/transport.h>

struct VmfRamWatch {
    VmfRamBlocks *blocks; /* a reference */
    VmfRamDiscarded discarded;
    void *opaque;
};

void ram_watches_init(RamWatches *watches)
{
    g_rw_lock_init(&watches->lock);
    watches->list = g_ptr_array_new();
}

void ram_watches_clear(RamWatches *watches)
{
    g_ptr_array_unref(watches->list);
    g_rw_lock_clear(&watches->lock);
}

VmfRamWatch *vmf_ram_blocks_watch(VmfRamBlocks *blocks, VmfRamDiscarded discarded, void *opaque)
{
    RamWatches *watches = ram_blocks_watches(blocks);
    VmfRamWatch *watch = g_new(VmfRamWatch, 1);

    *watch = (VmfRamWatch){
        .blocks = vmf_ram_blocks_ref(blocks), .discarded = discarded, .opaque = opaque};
    g_rw_lock_writer_lock(&watches->lock);
    g_ptr_array_add(watches->list, watch);
    g_atomic_int_set(&watches->count, (int)watches->list->len);
    g_rw_lock_writer_unlock(&watches->lock);
    return watch;
}

void vmf_ram_blocks_unwatch(VmfRamWatch *watch)
{
    RamWatches *watches;

    if (!watch) {
        return;
    }
    watches = ram_blocks_watches(watch->blocks);
    g_rw_lock_writer_lock(&watches->lock);
    g_ptr_array_remove(watches->list, watch);
    g_atomic_int_set(&watches->count, (int)watches->list->len);
    g_rw_lock_writer_unlock(&watches->lock);
    vmf_ram_blocks_unref(watch->blocks);
    g_free(watch);
}

void vmf_ram_discarded(VmfRamBlocks *blocks, const VmfRamBlock *block, uint64_t offset,
                       uint64_t length)
{
    RamWatches *watches = ram_blocks_watches(blocks);

    if (!g_atomic_int_get(&watches->count) || offset >= block->length || !length) {
        return;
    }
    length = MIN(length, block->length - offset);
    g_rw_lock_reader_lock(&watches->lock);
    for (unsigned i = 0; i < watches->list->len; i++) {
        const VmfRamWatch *watch = watches->list->pdata[i];

        watch->discarded(watch->opaque, block, offset, length);
    }
    g_rw_lock_reader_unlock(&watches->lock);
}
