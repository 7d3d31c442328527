/* SPDX-License-Identifier: BSD-2-Clause */
/* discards.c -- guest memory that was given back to the system while a device has it registered */

#include "discards.h"

#include "rdma.h"
#include "qemu-v1/v1.h"

/* --- notices --- */

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
    /* The source may have less of the block. */
    for (last = MIN(last, d->first[block + 1] - 1); stripe <= last; stripe++) {
        __atomic_fetch_or(&d->bits[stripe / 64], 1ull << (stripe % 64), __ATOMIC_RELEASE);
    }
    __atomic_fetch_add(&d->any, 1, __ATOMIC_RELEASE);
}

bool discards_init(RdmaConn *conn, GError **error)
{
    const VmfConn *base = &conn->base;
    Discards *d = &conn->discards;
    uint64_t total = 0;

    if (conn->options.registration == RDMA_REGISTRATION_ODP) {
        return true;
    }
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

static bool take(Discards *d, uint64_t stripe)
{
    const uint64_t mask = 1ull << (stripe % 64);
    uint64_t *word = &d->bits[stripe / 64];

    return (__atomic_load_n(word, __ATOMIC_RELAXED) & mask) &&
           (__atomic_fetch_and(word, ~mask, __ATOMIC_ACQ_REL) & mask);
}

bool discards_take(Discards *d, unsigned block, uint64_t offset)
{
    return take(d, d->first[block] + (offset >> d->shift));
}

/* --- source --- */

/*
 * With all RAM pinned a chunk is several channels', and writes of theirs are under way to it. It
 * stays as it is, and of what was discarded in it the stripe is registered once more, by the
 * channel that it belongs to.
 */
static Chunks *stripes(RdmaConn *conn, GError **error)
{
    Chunks *chunks = g_atomic_pointer_get(&conn->stripes), *fresh;

    if (chunks) {
        return chunks;
    }
    fresh = g_new0(Chunks, 1);
    if (!chunks_init(fresh, conn->base.blocks, conn->base.block_count, conn->chunks.pd,
                     conn->base.stripe, conn->chunks.access, error)) {
        chunks_clear(fresh);
        g_free(fresh);
        return NULL;
    }
    if (g_atomic_pointer_compare_and_exchange(&conn->stripes, NULL, fresh)) {
        return fresh;
    }
    chunks_clear(fresh); /* another channel was faster */
    g_free(fresh);
    return g_atomic_pointer_get(&conn->stripes);
}

static bool register_anew(RdmaChannel *channel, Chunks *chunks, unsigned block, uint32_t index,
                          GError **error)
{
    int err;

    chunks_unregister(chunks, block, index, channel->counters);
    err = chunks_register(chunks, block, index, channel->counters);
    if (err) {
        g_autofree char *what =
            g_strdup_printf("RAM block \"%s\" again, which was discarded in part, on %s",
                            chunks->blocks[block]->name, channel->ep->name);

        memlock_error(error, err, chunks_length(chunks, block, index), what,
                      channel->writer.dynamic);
    }
    return err == 0;
}

bool discards_renew(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                    GError **error)
{
    RdmaConn *conn = channel->conn;
    const bool fresh = discards_take(&conn->discards, block, offset);
    Chunks *chunks = channel->writer.dynamic ? &conn->chunks
                     : fresh                 ? stripes(conn, error)
                                             : g_atomic_pointer_get(&conn->stripes);
    Chunk *chunk;

    *ready = true;
    if (!chunks) {
        return !fresh;
    }
    chunk = &chunks->chunks[chunks_id(chunks, block, offset)];
    chunk->stale |= fresh;
    if (!chunk->stale) {
        return true;
    }
    if (chunk->mr && chunk->last_request > channel->ep->completed) {
        *ready = false;
        return writer_post_list(channel, error) && writer_ask_for_completion(channel, error);
    }
    chunk->stale = false;
    return register_anew(channel, chunks, block, (uint32_t)(offset >> chunks->shift), error);
}

/* --- destination --- */

static bool is_registered(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    if (conn->v1 && conn->v1->regions) {
        return v1_regions_registered(conn->v1->regions, block, offset);
    }
    return conn->chunks.chunks[chunks_id(&conn->chunks, block, offset)].mr != NULL;
}

bool discards_check(RdmaChannel *channel, GError **error)
{
    RdmaConn *conn = channel->conn;
    Discards *d = &conn->discards;
    const int any = __atomic_load_n(&d->any, __ATOMIC_ACQUIRE);

    if (any == channel->discards_seen) {
        return true;
    }
    channel->discards_seen = any;
    for (unsigned block = 0; block < d->block_count; block++) {
        for (uint64_t stripe = d->first[block]; stripe < d->first[block + 1]; stripe++) {
            const uint64_t index = stripe - d->first[block];

            if ((index + block) % conn->base.channels == channel->number && take(d, stripe) &&
                is_registered(conn, block, index << d->shift)) {
                g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                            "memory of RAM block \"%s\" (at 0x%" G_GINT64_MODIFIER
                            "x) was discarded while the source writes to it by RDMA: what it wrote "
                            "is lost; a destination must not discard guest memory",
                            conn->base.blocks[block]->name, index << d->shift);
                return false;
            }
        }
    }
    return true;
}
