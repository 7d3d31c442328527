/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-watch.c -- telling those who watch that guest memory was discarded */

#include "ram-watch.h"

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

void ram_watches_add(RamWatches *watches, RamWatch *watch)
{
    g_rw_lock_writer_lock(&watches->lock);
    g_ptr_array_add(watches->list, watch);
    g_atomic_int_set(&watches->count, (int)watches->list->len);
    g_rw_lock_writer_unlock(&watches->lock);
}

void ram_watches_remove(RamWatches *watches, RamWatch *watch)
{
    g_rw_lock_writer_lock(&watches->lock);
    g_ptr_array_remove(watches->list, watch);
    g_atomic_int_set(&watches->count, (int)watches->list->len);
    g_rw_lock_writer_unlock(&watches->lock);
}

void ram_watches_tell(RamWatches *watches, const VmfRamBlock *block, uint64_t offset,
                      uint64_t length)
{
    if (!g_atomic_int_get(&watches->count) || offset >= block->length || !length) {
        return;
    }
    length = MIN(length, block->length - offset);
    g_rw_lock_reader_lock(&watches->lock);
    for (unsigned i = 0; i < watches->list->len; i++) {
        const RamWatch *watch = watches->list->pdata[i];

        watch->discarded(watch->opaque, block, offset, length);
    }
    g_rw_lock_reader_unlock(&watches->lock);
}
