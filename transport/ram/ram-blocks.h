/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-blocks.h -- what only the library asks of a set of RAM blocks, or adds to it */

#ifndef VMF_RAM_BLOCKS_H
#define VMF_RAM_BLOCKS_H

#include <vmferry/ram.h>

/* What vmf_ram_blocks_set_discardable() has said. */
bool ram_blocks_discardable(const VmfRamBlocks *blocks);
/* Whether it is a block of this very set: only then its index means anything here. */
bool ram_blocks_has(const VmfRamBlocks *blocks, const VmfRamBlock *block);
/* Whether the set has an allocator. */
bool ram_blocks_can_grow(const VmfRamBlocks *blocks);
/* Adds a block in memory of the allocator's; NULL with *error. */
const VmfRamBlock *ram_blocks_grow(VmfRamBlocks *blocks, const char *name, uint64_t length,
                                   uint32_t page_size, GError **error);

#endif
