/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-blocks.h -- what only the library asks of a set of RAM blocks, or adds to it */

#ifndef VMF_RAM_BLOCKS_H
#define VMF_RAM_BLOCKS_H

#include <vmferry/ram.h>

/* Whether vmf_ram_blocks_set_discardable() was called. */
bool ram_blocks_discardable(const VmfRamBlocks *blocks);
/* Whether vmf_ram_blocks_set_late() was called. */
bool ram_blocks_late(const VmfRamBlocks *blocks);
/* A late set expects RAM in this memory, see vmf_ram_blocks_expect_unforked(). */
bool ram_blocks_expect(VmfRamBlocks *blocks, void *host, uint64_t length, GError **error);
/*
 * Whether the expected memory may still be given back: nobody has locked memory meanwhile. What a
 * transport pins of its own counts as pinned, so others cannot be told from it then.
 */
bool ram_expected_is_free(void);
/* The set of the memory that a late set expects; the set's own. NULL: it expects nothing. */
VmfRamBlocks *ram_blocks_expected(const VmfRamBlocks *blocks);
/* Whether it is a block of this set. Its index means nothing in any other set. */
bool ram_blocks_has(const VmfRamBlocks *blocks, const VmfRamBlock *block);
/* Whether the set has an allocator. */
bool ram_blocks_can_grow(const VmfRamBlocks *blocks);
/* Adds a block in memory that the allocator gives. Returns NULL with *error. */
const VmfRamBlock *ram_blocks_grow(VmfRamBlocks *blocks, const char *name, uint64_t length,
                                   uint32_t page_size, GError **error);

#endif
