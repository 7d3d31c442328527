/* SPDX-License-Identifier: BSD-2-Clause */
/* presence.h -- which pages of a RAM block were ever touched, found without touching them */

#ifndef VMF_PRESENCE_H
#define VMF_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <vmferry/ram.h>

typedef enum {
    PRESENCE_UNKNOWN, /* nothing tells: everything counts as touched */
    PRESENCE_PAGEMAP, /* private anonymous memory: /proc/self/pagemap */
    PRESENCE_FILE     /* shared memory with its file: holes in the file */
} PresenceKind;

typedef struct PresenceBlock {
    PresenceKind kind;
    /* Private anonymous memory whose faults are the kernel's own business (no userfaultfd): it
     * may be made resident and given back. */
    bool own;
    uint64_t file_offset; /* where in its file the block begins, by its mapping */
} PresenceBlock;

/* What the session is going to do with the memory. */
typedef enum { PRESENCE_READ, PRESENCE_WRITE } PresenceUse;

/* Shared by all blocks of a session. */
typedef struct Presence {
    int pagemap;           /* descriptor, or -1 */
    bool scan;             /* the kernel has PAGEMAP_SCAN */
    PresenceBlock *blocks; /* a block each */
    unsigned block_count;
    uint32_t page_size; /* of the system */
    /* pread(2); tests put their own here. */
    ssize_t (*read)(int fd, void *to, size_t size, off_t offset);
} Presence;

/*
 * What may be asked of each block, by the mappings that it lies in. Without /proc, or where
 * that does not say whether userfaultfd is at work, nothing counts as untouched. False, with the
 * block and the range in *error, if part of a block is not mapped or may not be used so; without
 * /proc nobody knows, and it is true.
 */
bool presence_init(Presence *presence, const VmfRamBlocks *blocks, PresenceUse use, GError **error);
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
