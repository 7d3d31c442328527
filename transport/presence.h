/* SPDX-License-Identifier: BSD-2-Clause */
/* presence.h -- which pages of a RAM block were ever touched, found without touching them */

#ifndef VMF_PRESENCE_H
#define VMF_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/ram.h>

typedef enum {
    PRESENCE_UNKNOWN, /* nothing tells: everything counts as touched */
    PRESENCE_PAGEMAP, /* private anonymous memory: /proc/self/pagemap */
    PRESENCE_FILE     /* shared memory with its file: holes in the file */
} PresenceKind;

/* Shared by all blocks of a session. */
typedef struct Presence {
    int pagemap;         /* descriptor, or -1 */
    PresenceKind *kinds; /* a block each */
    uint32_t page_size;  /* of the system */
} Presence;

bool presence_init(Presence *presence, const VmfRamBlocks *blocks, GError **error);
void presence_clear(Presence *presence);

/*
 * From `offset' on: whether that byte's page was touched, and until where
 * (*until) the same holds: looked for up to `end', or up to `touched_end', not
 * before that, if it was touched. Touches no memory of the block. Any thread.
 */
bool presence_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                  uint64_t touched_end, uint64_t *until);

/* The whole pages in [offset, end) of a block: addresses, *from >= *to if there are none. */
void presence_whole_pages(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                          uint64_t end, uintptr_t *from, uintptr_t *to);

#endif
