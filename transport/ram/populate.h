/* SPDX-License-Identifier: BSD-2-Clause */
/* populate.h -- RAM that is made resident while the destination still waits for its source */

#ifndef VMF_POPULATE_H
#define VMF_POPULATE_H

#include <stdbool.h>
#include <vmferry/ram.h>

/*
 * To make a page, the kernel zeroes it: for guest RAM that costs more time than
 * a fast link needs to fill it, and with registration or the first write it
 * falls into the migration. A destination that waits has that time. What the
 * source turns out never to have touched is given back to the system then, so
 * it is done only for sets whose memory may be (vmf_ram_blocks_set_discardable()), and
 * in them for private anonymous memory; and only as long as the host has
 * plenty (headroom.h).
 *
 * One owner, one thread at a time, which is not its own.
 */
typedef struct Populate Populate;

/* NULL if there is nothing that it could do. `root': see headroom.h; must stay. */
Populate *populate_new(VmfRamBlocks *ram, const char *root);
/* Goes on where it was paused, in a thread. Does nothing when it is running. */
void populate_run(Populate *populate);
/* Returns when no more memory is made: a few milliseconds at most. */
void populate_pause(Populate *populate);
/* Pauses. NULL is allowed. */
void populate_free(Populate *populate);

const VmfRamBlocks *populate_ram(const Populate *populate);
/* While it is paused: bytes made, in all, and in a block (by its index in the set). */
uint64_t populate_bytes(const Populate *populate);
uint64_t populate_block_bytes(const Populate *populate, unsigned index);

#endif
