/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-regions.c -- what a destination registers for stock QEMU, which does not tell its chunk size
 */

#include "v1-regions.h"

#include "verbs/memory-lock.h"
#include "v1-wire.h"

#define LEVELS 11 /* regions of 1 MiB to 1 GiB */
#define MIB_SHIFT 20
#define PAGE_SHIFT 12
#define PAGES_PER_MIB (1u << (MIB_SHIFT - PAGE_SHIFT))

struct V1Regions {
    VmfConn *conn;
    struct ibv_pd *pd;
    Chunks levels[LEVELS]; /* made when the first region of that size is registered */
    uint64_t most_mib;     /* the largest chunk that a source may have */
    uint64_t bound_mib;    /* the largest chunk that its requests still allow */
    uint8_t **asked;       /* of each block, a bit for each MiB: the source has asked for it */
    uint8_t **zero; /* of each block, a bit for each page: untouched when it was registered */
};

static bool bit(const uint8_t *bits, uint64_t number)
{
    return bits[number / 8] >> (number % 8) & 1;
}

static void set_bit(uint8_t *bits, uint64_t number)
{
    bits[number / 8] |= (uint8_t)(1u << (number % 8));
}

static unsigned level_of(uint64_t mib)
{
    const unsigned level = (unsigned)__builtin_ctzll(mib);

    g_assert(level < LEVELS);
    return level;
}

static uint64_t count_mib(const VmfRamBlock *block)
{
    return (block->length + V1_CHUNK_BYTES - 1) >> MIB_SHIFT;
}

V1Regions *v1_regions_new(VmfConn *conn, struct ibv_pd *pd, uint64_t most, GError **error)
{
    V1Regions *regions = g_new0(V1Regions, 1);

    g_assert(most >= V1_CHUNK_BYTES && most >> MIB_SHIFT < 1u << LEVELS);
    regions->conn = conn;
    regions->pd = pd;
    regions->most_mib = regions->bound_mib = most >> MIB_SHIFT;
    regions->asked = g_new0(uint8_t *, MAX(conn->block_count, 1));
    regions->zero = g_new0(uint8_t *, MAX(conn->block_count, 1));
    for (unsigned i = 0; i < conn->block_count; i++) {
        const uint64_t count = count_mib(conn->blocks[i]);

        regions->asked[i] = g_try_malloc0(count / 8 + 1);
        regions->zero[i] = g_try_malloc0((count + 1) * PAGES_PER_MIB / 8);
        if (!regions->asked[i] || !regions->zero[i]) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                        "no memory for the account of RAM block \"%s\"", conn->blocks[i]->name);
            v1_regions_free(regions);
            return NULL;
        }
        conn->own_bytes += (count + 1) * (PAGES_PER_MIB + 1) / 8;
    }
    return regions;
}

void v1_regions_free(V1Regions *regions)
{
    if (!regions) {
        return;
    }
    for (unsigned i = 0; i < LEVELS; i++) {
        if (regions->levels[i].first) {
            chunks_clear(&regions->levels[i]);
        }
    }
    for (unsigned i = 0; i < regions->conn->block_count; i++) {
        g_free(regions->asked[i]);
        g_free(regions->zero[i]);
    }
    g_free(regions->asked);
    g_free(regions->zero);
    g_free(regions);
}

/* --- how long the source's chunks are --- */

uint64_t v1_regions_bound(const uint8_t *asked, uint64_t count, uint64_t mib, uint64_t most)
{
    /*
     * The nearest requests on each side bound the size. It is at most the highest power of two in
     * which the two numbers differ. Requests farther away than `most' tell nothing.
     */
    for (uint64_t below = 1; below <= most && below <= mib; below++) {
        if (bit(asked, mib - below)) {
            most = MIN(most, 1ull << (63 - __builtin_clzll(mib ^ (mib - below))));
            break;
        }
    }
    for (uint64_t above = 1; above <= most && above < count - mib; above++) {
        if (bit(asked, mib + above)) {
            most = MIN(most, 1ull << (63 - __builtin_clzll(mib ^ (mib + above))));
            break;
        }
    }
    return most;
}

static void note_asked(V1Regions *regions, unsigned block, uint64_t first, uint64_t last)
{
    const uint64_t count = count_mib(regions->conn->blocks[block]);
    uint8_t *asked = regions->asked[block];

    if (regions->bound_mib > 1 && !bit(asked, first)) {
        regions->bound_mib = v1_regions_bound(asked, count, first, regions->bound_mib);
    }
    for (uint64_t mib = first; mib <= last; mib++) {
        set_bit(asked, mib);
    }
}

/* --- registering --- */

/* Notes which pages are untouched, because pinning touches them. */
static void note_untouched(V1Regions *regions, unsigned block, uint64_t start, uint64_t end)
{
    VmfConn *conn = regions->conn;

    for (uint64_t at = start; at < end;) {
        uint64_t until;

        if (conn->host->untouched(conn, block, at, end, &until)) {
            for (uint64_t page = (at + (1u << PAGE_SHIFT) - 1) >> PAGE_SHIFT;
                 page < until >> PAGE_SHIFT; page++) {
                set_bit(regions->zero[block], page);
            }
        }
        at = until;
    }
}

static struct ibv_mr *find(const V1Regions *regions, unsigned block, uint64_t first, uint64_t last)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        const Chunks *chunks = &regions->levels[level];

        if (chunks->first && first >> level == last >> level) {
            struct ibv_mr *mr = chunks->chunks[chunks->first[block] + (first >> level)].mr;

            if (mr) {
                return mr;
            }
        }
    }
    return NULL;
}

bool v1_regions_registered(const V1Regions *regions, unsigned block, uint64_t offset)
{
    return find(regions, block, offset >> MIB_SHIFT, offset >> MIB_SHIFT) != NULL;
}

static struct ibv_mr *add(V1Regions *regions, unsigned block, unsigned level, uint32_t index,
                          VmfChannelCounters *counters, GError **error)
{
    VmfConn *conn = regions->conn;
    const uint64_t start = (uint64_t)index << (level + MIB_SHIFT);
    Chunks *chunks;
    int err;

    g_assert(level < LEVELS);
    chunks = &regions->levels[level];
    if (!chunks->first) {
        if (!chunks_init(chunks, conn->blocks, conn->block_count, regions->pd,
                         V1_CHUNK_BYTES << level, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
                         error)) {
            return NULL;
        }
        conn->own_bytes += chunks->own_bytes;
    }
    note_untouched(regions, block, start, start + chunks_length(chunks, block, index));
    err = chunks_register(chunks, block, index, counters);
    if (err) {
        g_autofree char *what =
            g_strdup_printf("0x%" G_GINT64_MODIFIER "x of RAM block \"%s\" and what comes after it",
                            start, conn->blocks[block]->name);

        memlock_error(error, err, chunks_length(chunks, block, index), what, true);
        return NULL;
    }
    return chunks->chunks[chunks->first[block] + index].mr;
}

struct ibv_mr *v1_regions_ask(V1Regions *regions, unsigned block, uint64_t offset, uint64_t chunks,
                              VmfChannelCounters *counters, GError **error)
{
    const uint64_t count = count_mib(regions->conn->blocks[block]);
    const uint64_t first = offset >> MIB_SHIFT;
    const uint64_t last = MIN(first + MIN(chunks, count), count - 1);
    struct ibv_mr *mr;

    note_asked(regions, block, first, last);
    mr = find(regions, block, first, last);
    if (mr) {
        return mr;
    }
    for (unsigned level = level_of(regions->bound_mib); level <= level_of(regions->most_mib);
         level++) {
        if (first >> level == last >> level) {
            return add(regions, block, level, (uint32_t)(first >> level), counters, error);
        }
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                "%" G_GUINT64_FORMAT " chunks from 0x%" G_GINT64_MODIFIER
                "x on: they cannot be registered at once here; a larger accept-chunk-size would "
                "allow it",
                chunks + 1, offset);
    return NULL;
}

/* --- zero ranges --- */

/* Whether the source may have written somewhere in the chunk that holds this MiB. */
static bool maybe_written(const V1Regions *regions, unsigned block, uint64_t mib)
{
    const uint64_t first = mib / regions->bound_mib * regions->bound_mib;
    const uint64_t end = MIN(first + regions->bound_mib, count_mib(regions->conn->blocks[block]));

    for (uint64_t at = first; at < end; at++) {
        if (bit(regions->asked[block], at)) {
            return true;
        }
    }
    return false;
}

/*
 * Whether the page at `at' was untouched when it was registered. It is zero if the source has not
 * written it since.
 */
static bool began_as_zero(const V1Regions *regions, unsigned block, uint64_t at)
{
    return bit(regions->zero[block], at >> PAGE_SHIFT);
}

/* The end of the run of pages that began like the page at `at'. It is at most `end'. */
static uint64_t same_until(const V1Regions *regions, unsigned block, uint64_t at, uint64_t end)
{
    const bool zero = began_as_zero(regions, block, at);

    do {
        at = (at | ((1u << PAGE_SHIFT) - 1)) + 1;
    } while (at < end && began_as_zero(regions, block, at) == zero);
    return MIN(at, end);
}

/* Makes a range zero that lies in one registered MiB. */
static bool zero_registered(const V1Regions *regions, unsigned block, uint64_t offset, uint64_t end,
                            GError **error)
{
    VmfConn *conn = regions->conn;
    const bool written = maybe_written(regions, block, offset >> MIB_SHIFT);

    for (uint64_t at = offset; at < end;) {
        const uint64_t until = written ? end : same_until(regions, block, at, end);

        if ((written || !began_as_zero(regions, block, at)) &&
            !conn->host->zero_range(conn, block, at, until - at, error)) {
            return false;
        }
        at = until;
    }
    return true;
}

bool v1_regions_zero(V1Regions *regions, unsigned block, uint64_t offset, uint64_t length,
                     GError **error)
{
    VmfConn *conn = regions->conn;
    const uint64_t end = offset + length;

    for (uint64_t at = offset, until; at < end; at = until) {
        const uint64_t mib = at >> MIB_SHIFT;

        until = MIN((at | (V1_CHUNK_BYTES - 1)) + 1, end);
        if (!(find(regions, block, mib, mib)
                  ? zero_registered(regions, block, at, until, error)
                  : conn->host->release_range(conn, block, at, until - at, error))) {
            return false;
        }
    }
    return true;
}
