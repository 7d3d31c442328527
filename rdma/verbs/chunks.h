/* SPDX-License-Identifier: BSD-2-Clause */
/* chunks.h -- which chunks of guest RAM are registered, and with which keys */

#ifndef VMF_RDMA_CHUNKS_H
#define VMF_RDMA_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>
#include "verbs.h"

/*
 * RAM is registered in chunks. A chunk is an aligned piece of a block, and the last chunk of a
 * block may be short. With pin-all and with on-demand paging the chunks are large, and all of them
 * are registered at once. Otherwise a chunk of a source or of a vmferry is one stripe. So the whole
 * state of a chunk belongs to one channel's thread, and needs no lock. See v1-regions.h for the
 * destination of stock QEMU.
 */
#define CHUNK_SIZE_MIN (64u * 1024)
#define CHUNK_SIZE_MAX (1024u * 1024 * 1024)

typedef enum {
    CHUNK_NONE = 0,
    CHUNK_WANTED,    /* to be asked for in the next request */
    CHUNK_REQUESTED, /* asked for, and not answered yet */
    CHUNK_READY
} ChunkState;

#define CHUNK_NIL UINT32_MAX /* no chunk, in links */

typedef struct Chunk {
    struct ibv_mr *mr;     /* local registration */
    uint32_t rkey;         /* source: the key of the destination's registration */
    uint8_t state;         /* ChunkState; source */
    bool stale;            /* source: some of its memory was discarded after it was registered */
    uint16_t pending;      /* source: how many ranges wait for the chunk */
    uint32_t older, newer; /* source: least-recently-used list, ids of chunks */
    uint64_t last_request; /* source: `posted' after its latest write; UINT64_MAX while listed */
} Chunk;

typedef struct Chunks {
    unsigned shift; /* log2 of the chunk size */
    const VmfRamBlock *const *blocks;
    unsigned block_count;
    uint32_t *first; /* id of each block's first chunk; [block_count]: the number of chunks */
    Chunk *chunks;
    uint64_t *remote; /* source: base address of each block at the destination */
    int access;       /* access flags of a local registration */
    struct ibv_pd *pd;
    uint64_t own_bytes;
} Chunks;

/* A counter has one writer. Other threads read it. */
static inline void counter_add(uint64_t *counter, uint64_t delta)
{
    __atomic_store_n(counter, *counter + delta, __ATOMIC_RELAXED);
}

/*
 * Makes the table for chunks of `size' bytes, and registers nothing. `blocks' and `pd' must outlive
 * it. Registrations are made in `pd', with the flags `access'. False with *error. The caller calls
 * chunks_clear in either case.
 */
bool chunks_init(Chunks *chunks, const VmfRamBlock *const *blocks, unsigned block_count,
                 struct ibv_pd *pd, uint64_t size, int access, GError **error);
/* Gives up every registration, and frees the tables. A second call is allowed. */
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
/* The block that a chunk id belongs to. It is a binary search, so it is not for the hot path. */
unsigned chunks_block_of(const Chunks *chunks, uint32_t id);

/*
 * Registers a chunk locally. Returns 0 or an errno. Adds to the counters, which belong to the
 * calling thread.
 */
int chunks_register(Chunks *chunks, unsigned block, uint32_t index, VmfChannelCounters *counters);
/*
 * The address that a write of that range reads from. It is in RAM, or in the copy that is
 * registered in place of RAM. The call brings the copy up to date. `mr' is the registration of the
 * chunk.
 */
const uint8_t *chunks_source(const Chunks *chunks, const struct ibv_mr *mr, unsigned block,
                             uint64_t offset, uint64_t length);
/* Gives up a registration, if the chunk has one, and counts an eviction. */
void chunks_unregister(Chunks *chunks, unsigned block, uint32_t index,
                       VmfChannelCounters *counters);

/* The chunk size of pin-all for these blocks. */
uint64_t chunks_pin_all_size(const VmfRamBlock *const *blocks, unsigned block_count);
/*
 * Registers every chunk, with several threads, and waits for them. False with *error, also when
 * `cancel' ended it early.
 */
bool chunks_register_all(Chunks *chunks, GCancellable *cancel, VmfChannelCounters *counters,
                         GError **error);

#endif
