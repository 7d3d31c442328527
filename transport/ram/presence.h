/* SPDX-License-Identifier: BSD-2-Clause */
/* presence.h -- which pages of a RAM block were ever touched, found without touching them */

#ifndef VMF_PRESENCE_H
#define VMF_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <vmferry/ram.h>

typedef enum {
    PRESENCE_UNKNOWN, /* all memory counts as touched */
    PRESENCE_PAGEMAP, /* private anonymous memory: /proc/self/pagemap */
    PRESENCE_FILE     /* shared memory with its file: holes in the file */
} PresenceKind;

typedef struct PresenceBlock {
    PresenceKind kind;
    /* Private anonymous memory without userfaultfd: it may be made resident and given back. */
    bool own;
    uint64_t file_offset; /* where the block begins in its file, as its mapping says */
} PresenceBlock;

/* What the session does with the memory. */
typedef enum { PRESENCE_READ, PRESENCE_WRITE } PresenceUse;

/* Shared by all blocks of a session. */
typedef struct Presence {
    int pagemap;           /* descriptor, or -1 */
    bool scan;             /* the kernel has PAGEMAP_SCAN */
    PresenceBlock *blocks; /* one for each block */
    unsigned block_count;
    uint32_t page_size; /* of the system */
    /* pread(2); tests put their own function here. */
    ssize_t (*read)(int fd, void *to, size_t size, off_t offset);
} Presence;

/*
 * Finds out what can be asked of each block, by its mappings. If /proc is missing, or does not tell
 * userfaultfd, all memory counts as touched. Returns false with the block and the range in *error,
 * if part of a block is not mapped or not usable. Without /proc that is not checked. Clear it in
 * any case.
 */
bool presence_init(Presence *presence, const VmfRamBlocks *blocks, PresenceUse use, GError **error);
void presence_clear(Presence *presence);

/*
 * Whether the page of `offset' was touched. *until is where the answer changes: at most `end', or
 * at most `touched_end' (>= `end') for touched memory. It touches no memory of the block. Any
 * thread.
 */
bool presence_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                  uint64_t touched_end, uint64_t *until);

/* The addresses of the whole pages in [offset, end) of a block; *from >= *to: there are none. */
void presence_whole_pages(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                          uint64_t end, uintptr_t *from, uintptr_t *to);

#endif
