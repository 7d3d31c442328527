/* SPDX-License-Identifier: BSD-2-Clause */
/* populate.h -- making RAM resident while the destination waits for its source */

#ifndef VMF_POPULATE_H
#define VMF_POPULATE_H

#include <stdbool.h>
#include <vmferry/ram.h>

/*
 * The kernel zeroes each page that it makes. For guest RAM that takes longer than a fast link needs
 * to fill it, and it would happen during the migration. A destination that waits has that time.
 * Memory that the source never touched is given back to the system later. So this works only on
 * sets that allow it (vmf_ram_blocks_set_discardable()), and there on private anonymous memory. It
 * ends when the host has little memory left (headroom.h). Of a late set it makes the memory that
 * the set expects.
 *
 * It has one owner, and one thread at a time calls it.
 */
typedef struct Populate Populate;

/*
 * Returns NULL if the set allows nothing. It holds a reference to `ram'. `root' is that of
 * headroom.h, and must stay valid.
 */
Populate *populate_new(VmfRamBlocks *ram, const char *root);
/* Starts a thread that goes on where it was paused. Does nothing while that thread runs. */
void populate_run(Populate *populate);
/* Ends the thread. That takes a few milliseconds at most. */
void populate_pause(Populate *populate);
/* Pauses, and frees. NULL is allowed. */
void populate_free(Populate *populate);

/* The set that it was made for. */
const VmfRamBlocks *populate_ram(const Populate *populate);
/* While it is paused: bytes made resident, of all blocks, and of one block (by its index). */
uint64_t populate_bytes(const Populate *populate);
uint64_t populate_block_bytes(const Populate *populate, unsigned index);

/* What was made so far, for a session that may live longer. One owner; any thread reads it. */
typedef struct Populated Populated;

/* While it is paused. */
Populated *populate_result(const Populate *populate);
/* NULL is allowed. */
void populated_free(Populated *populated);
/* Whether some of the block's memory was made. Memory that was there before is left in place. */
bool populated_has(const Populated *populated, const VmfRamBlock *block);
uint64_t populated_bytes(const Populated *populated);

#endif
