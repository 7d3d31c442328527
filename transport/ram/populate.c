/* SPDX-License-Identifier: BSD-2-Clause */
/* populate.c -- making RAM resident while the destination waits for its source */

#include "populate.h"

#include <errno.h>
#include <sys/mman.h>
#include <glib.h>

#include "base/fault.h"
#include "headroom.h"
#include "presence.h"
#include "ram-blocks.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; madvise(2) */
#endif

/* A pause waits for one step at most. Steps begin at multiples of STEP, which suits huge pages. */
#define STEP (4ull << 20)
/* Bytes after which the headroom is read again. */
#define BUDGET_MAX (64ull << 20)

/* Memory that was made, in one piece. */
typedef struct Made {
    uintptr_t from, to;
} Made;

struct Populate {
    VmfRamBlocks *ram;
    VmfRamBlocks *memory; /* `ram', or what it expects; its own */
    unsigned block_count; /* the set may grow later */
    const char *root;
    Presence presence;
    GThread *thread;
    int stop; /* atomic */
    /* The thread's own, while there is a thread. */
    unsigned block; /* the next place to look at */
    uint64_t offset;
    uint64_t budget;
    GArray *made; /* Made, as it came */
};

Populate *populate_new(VmfRamBlocks *ram, const char *root)
{
    VmfRamBlocks *memory = ram_blocks_late(ram) ? ram_blocks_expected(ram) : ram;
    const unsigned count = memory ? vmf_ram_blocks_count(memory) : 0;
    Populate *populate;

    if (!ram_blocks_discardable(ram) || !count) {
        return NULL;
    }
    populate = g_new0(Populate, 1);
    populate->ram = vmf_ram_blocks_ref(ram);
    populate->memory = memory;
    populate->block_count = count;
    populate->root = root;
    populate->made = g_array_new(FALSE, FALSE, sizeof(Made));
    /* If it fails, the set-up of the session says why. */
    presence_init(&populate->presence, memory, PRESENCE_WRITE, NULL);
    return populate;
}

/* Whether the next step may be made. Reads the headroom when the budget is used up. */
static bool may_take(Populate *populate, const VmfRamBlock *block, uint64_t bytes)
{
    if (populate->budget < bytes) {
        const uint64_t headroom = headroom_bytes(populate->root, block->host + populate->offset);

        populate->budget = MIN(headroom, BUDGET_MAX);
    }
    return populate->budget >= bytes;
}

static void note_made(GArray *made, uintptr_t from, uintptr_t to)
{
    const Made piece = {from, to};

    if (made->len && g_array_index(made, Made, made->len - 1).to == from) {
        g_array_index(made, Made, made->len - 1).to = to;
    } else {
        g_array_append_val(made, piece);
    }
}

/* Makes the pages that lie wholly in [offset, end) of a block resident. */
static bool make_pages(Populate *populate, const VmfRamBlock *block, uint64_t offset, uint64_t end)
{
    uintptr_t from, to;

    presence_whole_pages(&populate->presence, block, offset, end, &from, &to);
    if (to <= from) {
        return true;
    }
    if (!may_take(populate, block, to - from)) {
        g_debug("RAM block \"%s\" is made ready up to 0x%" G_GINT64_MODIFIER
                "x only: the host, or a limit, has too little memory left",
                block->name, offset);
        return false;
    }
    if (VMF_FAULT("madvise populate") ? (errno = ENOMEM, true)
                                      : madvise((void *)from, to - from, MADV_POPULATE_WRITE) < 0) {
        g_debug("RAM block \"%s\" is made ready up to 0x%" G_GINT64_MODIFIER "x only: %s",
                block->name, offset, g_strerror(errno));
        return false;
    }
    populate->budget -= to - from;
    note_made(populate->made, from, to);
    return true;
}

/* Makes untouched memory resident, up to the next multiple of STEP. */
static bool take_step(Populate *populate, const VmfRamBlock *block)
{
    const uintptr_t at = (uintptr_t)block->host + populate->offset;
    const uint64_t end = MIN(block->length, populate->offset + (at / STEP + 1) * STEP - at);

    while (populate->offset < end) {
        const uint64_t offset = populate->offset;
        uint64_t until;

        if (!presence_run(&populate->presence, block, offset, end, end, &until) &&
            !make_pages(populate, block, offset, until)) {
            return false;
        }
        populate->offset = until;
    }
    return true;
}

static void *populate_main(void *opaque)
{
    Populate *populate = opaque;

    while (populate->block < populate->block_count && !g_atomic_int_get(&populate->stop)) {
        const VmfRamBlock *block = vmf_ram_blocks_get(populate->memory, populate->block);

        if (populate->offset >= block->length || !populate->presence.blocks[block->index].own) {
            populate->block++;
            populate->offset = 0;
            populate->budget = 0; /* the next block may lie on other NUMA nodes */
        } else if (!take_step(populate, block)) {
            populate->offset = block->length;
        }
    }
    return NULL;
}

void populate_run(Populate *populate)
{
    if (!populate->thread) {
        g_atomic_int_set(&populate->stop, 0);
        /* Without a thread the migration only takes longer. */
        populate->thread = g_thread_try_new("vmf-populate", populate_main, populate, NULL);
    }
}

void populate_pause(Populate *populate)
{
    g_atomic_int_set(&populate->stop, 1);
    if (populate->thread) {
        g_thread_join(g_steal_pointer(&populate->thread));
    }
}

void populate_free(Populate *populate)
{
    if (!populate) {
        return;
    }
    populate_pause(populate);
    presence_clear(&populate->presence);
    g_array_unref(populate->made);
    vmf_ram_blocks_unref(populate->ram);
    g_free(populate);
}

const VmfRamBlocks *populate_ram(const Populate *populate)
{
    return populate->ram;
}

/* Bytes of [from, to) that were made. */
static uint64_t made_bytes(const GArray *made, uintptr_t from, uintptr_t to)
{
    uint64_t sum = 0;

    for (guint i = 0; i < made->len; i++) {
        const Made *piece = &g_array_index(made, Made, i);
        const uintptr_t begin = MAX(piece->from, from), end = MIN(piece->to, to);

        sum += begin < end ? end - begin : 0;
    }
    return sum;
}

uint64_t populate_block_bytes(const Populate *populate, unsigned index)
{
    const VmfRamBlock *block = vmf_ram_blocks_get(populate->memory, index);
    const uintptr_t host = block ? (uintptr_t)block->host : 0;

    return block ? made_bytes(populate->made, host, host + block->length) : 0;
}

uint64_t populate_bytes(const Populate *populate)
{
    return made_bytes(populate->made, 0, UINTPTR_MAX);
}

/* --- what was made --- */

struct Populated {
    GArray *made; /* Made, ascending */
    uint64_t bytes;
};

static gint compare_made(gconstpointer one, gconstpointer other)
{
    const Made *a = one, *b = other;

    return a->from < b->from ? -1 : a->from > b->from;
}

Populated *populate_result(const Populate *populate)
{
    Populated *populated = g_new(Populated, 1);

    populated->made = g_array_copy(populate->made);
    populated->bytes = populate_bytes(populate);
    g_array_sort(populated->made, compare_made);
    return populated;
}

void populated_free(Populated *populated)
{
    if (populated) {
        g_array_unref(populated->made);
        g_free(populated);
    }
}

bool populated_has(const Populated *populated, const VmfRamBlock *block)
{
    const uintptr_t host = (uintptr_t)block->host;
    const GArray *made = populated->made;
    guint low = 0, high = made->len;

    while (low < high) {
        const guint middle = low + (high - low) / 2;

        if (g_array_index(made, Made, middle).to <= host) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < made->len && g_array_index(made, Made, low).from < host + block->length;
}

uint64_t populated_bytes(const Populated *populated)
{
    return populated->bytes;
}
