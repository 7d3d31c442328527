/* SPDX-License-Identifier: BSD-2-Clause */
/* pinned.c -- guest RAM that is registered while the destination still waits for its source */

#include "pinned.h"

#include "memory-lock.h"

struct Pinned {
    struct ibv_pd *pd;
    VmfRamBlocks *ram;
    const VmfRamBlock **blocks;
    Chunks chunks;
    uint8_t
        *discarded; /* atomic, for each chunk: it was discarded in part, and has the wrong frames */
    VmfRamWatch *watch;
    GCancellable *cancel;
    GThread *thread;
    /* These belong to the thread until it is joined. */
    VmfChannelCounters counters;
    GError *error;
};

static void *pinned_main(void *opaque)
{
    Pinned *pinned = opaque;

    chunks_register_all(&pinned->chunks, pinned->cancel, &pinned->counters, &pinned->error);
    return NULL;
}

static void discarded(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    Pinned *pinned = opaque;
    const Chunks *chunks = &pinned->chunks;

    if (block->index >= chunks->block_count) {
        return; /* the block came with a session */
    }
    for (uint32_t id = chunks_id(chunks, block->index, offset);
         id <= chunks_id(chunks, block->index, offset + length - 1); id++) {
        __atomic_store_n(&pinned->discarded[id], 1, __ATOMIC_RELEASE);
    }
}

static bool watch(Pinned *pinned)
{
    pinned->discarded =
        g_try_new0(uint8_t, pinned->chunks.first[pinned->chunks.block_count] + 1ull);
    if (!pinned->discarded) {
        return false;
    }
    pinned->watch = vmf_ram_blocks_watch(pinned->ram, discarded, pinned);
    return true;
}

Pinned *pinned_start(struct ibv_context *verbs, VmfRamBlocks *ram, int access)
{
    const unsigned count = vmf_ram_blocks_count(ram);
    Pinned *pinned = g_new0(Pinned, 1);
    g_autoptr(GError) error = NULL;

    pinned->cancel = g_cancellable_new();
    pinned->ram = vmf_ram_blocks_ref(ram);
    pinned->blocks = g_new(const VmfRamBlock *, MAX(count, 1));
    for (unsigned i = 0; i < count; i++) {
        pinned->blocks[i] = vmf_ram_blocks_get(ram, i);
    }
    pinned->pd = VERBS_POINTER("ibv_alloc_pd ahead", ibv_alloc_pd(verbs));
    if (pinned->pd &&
        chunks_init(&pinned->chunks, pinned->blocks, count, pinned->pd,
                    chunks_pin_all_size(pinned->blocks, count), access, &error) &&
        watch(pinned)) {
        pinned->thread = g_thread_try_new("vmf-pin-ahead", pinned_main, pinned, NULL);
    }
    if (!pinned->thread) {
        g_debug("rdma: RAM is not pinned ahead: %s", error ? error->message : "no resources");
        g_clear_pointer(&pinned, pinned_free);
    }
    return pinned;
}

void pinned_free(Pinned *pinned)
{
    if (!pinned) {
        return;
    }
    g_cancellable_cancel(pinned->cancel);
    if (pinned->thread) {
        g_thread_join(pinned->thread);
    }
    vmf_ram_blocks_unwatch(pinned->watch);
    g_free(pinned->discarded);
    chunks_clear(&pinned->chunks);
    if (pinned->pd) {
        ibv_dealloc_pd(pinned->pd);
    }
    g_clear_error(&pinned->error);
    g_free(pinned->blocks);
    vmf_ram_blocks_unref(pinned->ram);
    g_object_unref(pinned->cancel);
    g_free(pinned);
}

struct ibv_pd *pinned_pd(const Pinned *pinned)
{
    return pinned->pd;
}

static void pass_on(GCancellable *from, GCancellable *to)
{
    (void)from;
    g_cancellable_cancel(to);
}

/*
 * Waits for the thread. It looks at `cancel' between two registrations, as the threads of a session
 * do.
 */
static void await_thread(Pinned *pinned, GCancellable *cancel)
{
    gulong id = g_cancellable_connect(cancel, G_CALLBACK(pass_on), pinned->cancel, NULL);

    g_thread_join(g_steal_pointer(&pinned->thread));
    g_cancellable_disconnect(cancel, id);
}

static void move_block(Pinned *pinned, Chunks *chunks, unsigned to)
{
    const unsigned from = chunks->blocks[to]->index; /* in the set, as in pinned->blocks */

    for (uint32_t i = 0; i < chunks_count(chunks, to); i++) {
        Chunk *chunk = &pinned->chunks.chunks[pinned->chunks.first[from] + i];

        chunks->chunks[chunks->first[to] + i].mr = g_steal_pointer(&chunk->mr);
    }
}

/*
 * Registers every chunk anew that was discarded in part meanwhile. The source is told the keys
 * after that.
 */
static bool renew_discarded(Pinned *pinned, GError **error)
{
    Chunks *chunks = &pinned->chunks;

    for (uint32_t id = 0; id < chunks->first[chunks->block_count]; id++) {
        const unsigned block = chunks_block_of(chunks, id);
        int err = 0;

        if (__atomic_exchange_n(&pinned->discarded[id], 0, __ATOMIC_ACQ_REL)) {
            chunks_unregister(chunks, block, id - chunks->first[block], &pinned->counters);
            err = chunks_register(chunks, block, id - chunks->first[block], &pinned->counters);
        }
        if (err) {
            g_autofree char *what = g_strdup_printf("RAM block \"%s\" again, which was discarded "
                                                    "in part",
                                                    chunks->blocks[block]->name);

            memlock_error(error, err, 1ull << chunks->shift, what, false);
            return false;
        }
    }
    return true;
}

bool pinned_take(Pinned *pinned, Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                 GError **error)
{
    g_assert(chunks->pd == pinned->pd);
    await_thread(pinned, cancel);
    if (chunks->shift != pinned->chunks.shift ||
        chunks->block_count != pinned->chunks.block_count) {
        /*
         * The source has less of some block, or more blocks came with it. So nothing can be moved.
         */
        chunks_clear(&pinned->chunks);
        return chunks_register_all(chunks, cancel, counters, error);
    }
    if (pinned->error) {
        g_propagate_error(error, g_steal_pointer(&pinned->error));
        return false;
    }
    if (!renew_discarded(pinned, error)) {
        return false;
    }
    for (unsigned to = 0; to < chunks->block_count; to++) {
        move_block(pinned, chunks, to);
    }
    /* The time that it took is not the session's, so it is not counted. */
    counter_add(&counters->registrations, pinned->counters.registrations);
    counter_add(&counters->registered_bytes, pinned->counters.registered_bytes);
    return true;
}
