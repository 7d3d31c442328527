/* SPDX-License-Identifier: BSD-2-Clause */
/* discards.c -- guest memory that was given back to the system while a device has it registered */

#include "discards.h"

static void discarded(void *opaque, const VmfRamBlock *ram, uint64_t offset, uint64_t length)
{
    Discards *d = opaque;
    const uint32_t block = ram->index < d->set_count ? d->wire[ram->index] : UINT32_MAX;
    uint64_t stripe, last;

    if (block == UINT32_MAX) {
        return;
    }
    stripe = d->first[block] + (offset >> d->shift);
    last = d->first[block] + ((offset + length - 1) >> d->shift);
    /* The source may have a shorter block, so the notice may go beyond the stripes. */
    for (last = MIN(last, d->first[block + 1] - 1); stripe <= last; stripe++) {
        __atomic_fetch_or(&d->bits[stripe / 64], 1ull << (stripe % 64), __ATOMIC_RELEASE);
    }
    __atomic_fetch_add(&d->any, 1, __ATOMIC_RELEASE);
}

bool discards_init(Discards *d, const VmfConn *base, GError **error)
{
    uint64_t total = 0;

    d->shift = (unsigned)__builtin_ctzll(base->stripe);
    d->block_count = base->block_count;
    d->set_count = vmf_ram_blocks_count(base->ram);
    d->first = g_try_new0(uint64_t, base->block_count + 1ull);
    d->wire = g_try_new(uint32_t, MAX(d->set_count, 1));
    for (unsigned i = 0; d->wire && i < d->set_count; i++) {
        d->wire[i] = UINT32_MAX;
    }
    for (unsigned i = 0; d->first && d->wire && i < base->block_count; i++) {
        d->first[i] = total;
        d->wire[base->blocks[i]->index] = i;
        total += (base->blocks[i]->length + base->stripe - 1) >> d->shift;
    }
    d->bits = g_try_new0(uint64_t, total / 64 + 1);
    if (!d->first || !d->wire || !d->bits) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "no memory for a table of %" G_GUINT64_FORMAT " stripes", total);
        return false;
    }
    d->first[base->block_count] = total;
    d->watch = vmf_ram_blocks_watch(base->ram, discarded, d);
    return true;
}

void discards_clear(Discards *d)
{
    vmf_ram_blocks_unwatch(g_steal_pointer(&d->watch));
    g_clear_pointer(&d->first, g_free);
    g_clear_pointer(&d->wire, g_free);
    g_clear_pointer(&d->bits, g_free);
}

bool discards_take(Discards *d, unsigned block, uint64_t offset)
{
    const uint64_t stripe = d->first[block] + (offset >> d->shift);
    const uint64_t mask = 1ull << (stripe % 64);
    uint64_t *word = &d->bits[stripe / 64];

    return (__atomic_load_n(word, __ATOMIC_RELAXED) & mask) &&
           (__atomic_fetch_and(word, ~mask, __ATOMIC_ACQ_REL) & mask);
}
