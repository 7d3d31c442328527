/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-scan.c -- what of a RAM range must be sent, and zeroing without making memory resident */

#include "ram-scan.h"

#include <string.h>
#include <sys/mman.h>
#include <vmferry/plugin/transport.h>

#include "base/fault.h"

struct RamScan {
    VmfRamBlocks *blocks;
    Presence presence;
    /*
     * For each block, a bit for each system page that is known to be touched. No other answer may
     * be kept: the guest may write an untouched page at once, and it is saved again in the same
     * round.
     */
    uint64_t **touched;
    unsigned block_count; /* the set may have grown since then */
    VmfRamWatch *watch;
    uint64_t own_bytes;
};

static void discarded(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length);

/* Allocates the bits of a block. Returns false with *error. */
static bool add_bits(RamScan *scan, const VmfRamBlock *block, GError **error)
{
    const uint64_t words = (block->length / scan->presence.page_size + 2) / 64 + 1;

    if (scan->presence.blocks[block->index].kind == PRESENCE_UNKNOWN) {
        return true;
    }
    scan->touched[block->index] = VMF_FAULT("scan bits") ? NULL : g_try_new0(uint64_t, words);
    if (!scan->touched[block->index]) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "no memory to note which pages of RAM block \"%s\" are in use", block->name);
        return false;
    }
    scan->own_bytes += words * 8;
    return true;
}

static bool scan_init(RamScan *scan, PresenceUse use, GError **error)
{
    const unsigned count = scan->block_count;

    if (!presence_init(&scan->presence, scan->blocks, use, error)) {
        return false;
    }
    scan->own_bytes = count * (sizeof(PresenceBlock) + sizeof(*scan->touched));
    for (unsigned i = 0; i < count; i++) {
        if (!add_bits(scan, vmf_ram_blocks_get(scan->blocks, i), error)) {
            return false;
        }
    }
    return true;
}

RamScan *ram_scan_new(VmfRamBlocks *blocks, PresenceUse use, GError **error)
{
    RamScan *scan = g_new0(RamScan, 1);

    scan->blocks = vmf_ram_blocks_ref(blocks);
    scan->block_count = vmf_ram_blocks_count(blocks);
    scan->touched = g_new0(uint64_t *, MAX(scan->block_count, 1));
    scan->presence.pagemap = -1;
    if (!scan_init(scan, use, error)) {
        ram_scan_free(scan);
        return NULL;
    }
    scan->watch = vmf_ram_blocks_watch(blocks, discarded, scan);
    return scan;
}

void ram_scan_free(RamScan *scan)
{
    if (!scan) {
        return;
    }
    vmf_ram_blocks_unwatch(scan->watch);
    for (unsigned i = 0; i < scan->block_count; i++) {
        g_free(scan->touched[i]);
    }
    g_free(scan->touched);
    presence_clear(&scan->presence);
    vmf_ram_blocks_unref(scan->blocks);
    g_free(scan);
}

uint64_t ram_scan_own_bytes(const RamScan *scan)
{
    return sizeof(*scan) + scan->own_bytes;
}

/* --- the bits of touched pages: pages are counted from the one that holds the block's start --- */

static uint64_t page_of(const RamScan *scan, const VmfRamBlock *block, uint64_t offset)
{
    const uint64_t size = scan->presence.page_size;

    return ((uintptr_t)block->host % size + offset) / size;
}

/* The end of the run of set bits from `offset' on, at most `end'. */
static uint64_t known_touched(const RamScan *scan, const VmfRamBlock *block, uint64_t offset,
                              uint64_t end)
{
    const uint64_t *bits = scan->touched[block->index];
    const uint64_t size = scan->presence.page_size;
    const uint64_t lead = (uintptr_t)block->host % size;
    uint64_t page = page_of(scan, block, offset);
    const uint64_t last = page_of(scan, block, end - 1);

    while (page <= last) {
        uint64_t word = __atomic_load_n(&bits[page / 64], __ATOMIC_RELAXED) >> (page % 64);
        unsigned ones = word == UINT64_MAX ? 64 : (unsigned)__builtin_ctzll(~word);

        ones = MIN(ones, 64 - (unsigned)(page % 64));
        page += ones;
        if (page % 64 || ones == 0) {
            break;
        }
    }
    /* The page may start before the block, or before `offset'. */
    return page > last ? end : MAX(offset + lead, page * size) - lead;
}

/* Sets the bits of all pages of [offset, end) to one value. */
static void set_touched(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                        bool touched)
{
    uint64_t *bits = scan->touched[block->index];
    uint64_t last = page_of(scan, block, end - 1);

    for (uint64_t page = page_of(scan, block, offset); page <= last;) {
        unsigned shift = (unsigned)(page % 64);
        unsigned count = (unsigned)MIN(64 - shift, last - page + 1);
        uint64_t mask = (count == 64 ? UINT64_MAX : (1ull << count) - 1) << shift;

        if (touched) {
            __atomic_fetch_or(&bits[page / 64], mask, __ATOMIC_RELAXED);
        } else {
            __atomic_fetch_and(&bits[page / 64], ~mask, __ATOMIC_RELAXED);
        }
        page += count;
    }
}

/* Whole pages that were discarded count as untouched, until the guest touches them. */
static void discarded(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    RamScan *scan = opaque;
    uintptr_t from, to;

    if (block->index >= scan->block_count || !scan->touched[block->index]) {
        return;
    }
    presence_whole_pages(&scan->presence, block, offset, offset + length, &from, &to);
    if (from < to) {
        set_touched(scan, block, from - (uintptr_t)block->host, to - (uintptr_t)block->host, false);
    }
}

/* Touched memory is remembered, so it pays to ask about more of it than is needed now. Bytes. */
#define LOOK_AHEAD (64ull << 20)

bool ram_scan_touched(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                      uint64_t *until)
{
    bool touched;

    if (!scan->touched[block->index]) {
        *until = end;
        return true;
    }
    *until = known_touched(scan, block, offset, end);
    if (*until > offset) {
        return true;
    }
    touched = presence_run(&scan->presence, block, offset, end,
                           MAX(end, MIN(offset + LOOK_AHEAD, block->length)), until);
    if (touched) {
        set_touched(scan, block, offset, *until, true);
        *until = MIN(*until, end);
    }
    return touched;
}

/* --- scanning --- */

/* Whether the pages from `offset' on are zero, and where that changes (*until). */
static bool zero_run(const VmfRamBlock *block, uint64_t offset, uint64_t end, uint64_t *until)
{
    const uint64_t size = block->page_size;
    bool zero = false;
    uint64_t at = offset;

    while (at < end) {
        uint64_t next = MIN((at / size + 1) * size, end);
        bool this_one = vmf_is_zero(block->host + at, next - at);

        if (at == offset) {
            zero = this_one;
        } else if (this_one != zero) {
            break;
        }
        at = next;
    }
    *until = at;
    return zero;
}

bool ram_scan_next(RamScan *scan, const VmfRamBlock *block, uint64_t *offset, uint64_t end,
                   RamRun *run)
{
    uint64_t at = *offset;

    if (at >= end) {
        return false;
    }
    run->offset = at;
    /* A zero run may consist of zero and of untouched pieces, in any order. */
    while (at < end) {
        uint64_t until;
        bool zero =
            !ram_scan_touched(scan, block, at, end, &until) || zero_run(block, at, until, &until);

        if (at == run->offset) {
            run->zero = zero;
        } else if (zero != run->zero) {
            break;
        }
        at = until;
    }
    run->length = at - run->offset;
    *offset = at;
    return true;
}

/* --- zeroing --- */

void ram_scan_zero(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    uint64_t at = offset, end = offset + length;

    while (at < end) {
        uint64_t until;

        if (ram_scan_touched(scan, block, at, end, &until)) {
            for (uint64_t page = at; page < until;) {
                uint64_t next = MIN((page / block->page_size + 1) * block->page_size, until);

                if (!vmf_is_zero(block->host + page, next - page)) {
                    memset(block->host + page, 0, next - page);
                }
                page = next;
            }
        }
        at = until;
    }
}

/* A shorter range stays resident, because giving it back costs more than finding it zero. */
#define RELEASE_MIN (64ull << 10)

void ram_scan_release(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length)
{
    const uintptr_t host = (uintptr_t)block->host;
    uintptr_t from, to;

    presence_whole_pages(&scan->presence, block, offset, offset + length, &from, &to);
    if (to < from + RELEASE_MIN || !scan->presence.blocks[block->index].own ||
        VMF_FAULT("madvise release") || madvise((void *)from, to - from, MADV_DONTNEED) < 0) {
        ram_scan_zero(scan, block, offset, length);
        return;
    }
    set_touched(scan, block, from - host, to - host, false);
    ram_scan_zero(scan, block, offset, from - host - offset);
    ram_scan_zero(scan, block, to - host, offset + length - (to - host));
}
