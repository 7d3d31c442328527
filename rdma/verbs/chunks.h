/* SPDX-License-Identifier: BSD-2-Clause */
/* chunks.h -- which pieces of guest RAM are registered, and with which keys */

#ifndef VMF_RDMA_CHUNKS_H
#define VMF_RDMA_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>
#include "verbs.h"

/*
 * RAM is registered in chunks: aligned pieces of a block, the last one short.
 * With pin-all (and on-demand paging) the chunks are large and all registered
 * at set-up. Otherwise a chunk is one stripe, so that its whole state belongs to
 * one channel's thread and needs no lock.
 */
#define CHUNK_SIZE_MIN (64u * 1024)
#define CHUNK_SIZE_MAX (1024u * 1024 * 1024)

typedef enum {
    CHUNK_NONE = 0,
    CHUNK_WANTED,    /* in the next request */
    CHUNK_REQUESTED, /* asked for, not answered */
    CHUNK_READY
} ChunkState;

#define CHUNK_NIL UINT32_MAX /* no chunk, in links */

typedef struct Chunk {
    struct ibv_mr *mr;     /* local registration */
    uint32_t rkey;         /* source: of the destination's */
    uint8_t state;         /* ChunkState; source */
    bool stale;            /* source: memory of it was discarded since it was registered */
    uint16_t pending;      /* source: ranges that wait for it */
    uint32_t older, newer; /* source: least-recently-used list, ids of chunks */
    uint64_t last_request; /* source: the send queue's count after its latest write */
} Chunk;

typedef struct Chunks {
    unsigned shift; /* log2 of the chunk size */
    const VmfRamBlock *const *blocks;
    unsigned block_count;
    uint32_t *first; /* id of each block's first chunk; [block_count]: their number */
    Chunk *chunks;
    uint64_t *remote; /* source: base address of each block at the destination */
    int access;       /* of a local registration */
    struct ibv_pd *pd;
    uint64_t own_bytes;
} Chunks;

/* A counter has one writer; readers look from other threads. */
static inline void counter_add(uint64_t *counter, uint64_t delta)
{
    __atomic_store_n(counter, *counter + delta, __ATOMIC_RELAXED);
}

/* `blocks' must stay; registrations are made in `pd', for `access'. */
bool chunks_init(Chunks *chunks, const VmfRamBlock *const *blocks, unsigned block_count,
                 struct ibv_pd *pd, uint64_t size, int access, GError **error);
/* Gives up every registration. */
void chunks_clear(Chunks *chunks);

static inline uint32_t chunks_id(const Chunks *chunks, unsigned block, uint64_t offset)
{
    return chunks->first[block] + (uint32_t)(offset >> chunks->shift);
}

static inline uint32_t chunks_count(const Chunks *chunks, unsigned block)
{
    return chunks->first[block + 1] - chunks->first[block];
}

/* Bytes of chunk `index' of a block. */
uint64_t chunks_length(const Chunks *chunks, unsigned block, uint32_t index);
/* The block that a chunk id belongs to (binary search: not for the hot path). */
unsigned chunks_block_of(const Chunks *chunks, uint32_t id);

/*
 * Registers a chunk locally; returns 0 or an errno. Adds to the counters,
 * which belong to the calling thread.
 */
int chunks_register(Chunks *chunks, unsigned block, uint32_t index, VmfChannelCounters *counters);
/*
 * Where a write of that range is to read it: in RAM, or in the copy that is registered in its
 * place, which is brought up to date. `mr' is the registration of its chunk.
 */
const uint8_t *chunks_source(const Chunks *chunks, const struct ibv_mr *mr, unsigned block,
                             uint64_t offset, uint64_t length);
void chunks_unregister(Chunks *chunks, unsigned block, uint32_t index,
                       VmfChannelCounters *counters);

/* The chunk size of pin-all for that RAM. */
uint64_t chunks_pin_all_size(const VmfRamBlock *const *blocks, unsigned block_count);
/* Registers everything, with several threads. Ends early on `cancel'. */
bool chunks_register_all(Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                         GError **error);

#endif
