/* SPDX-License-Identifier: BSD-2-Clause */
/* presence.c -- which pages of a RAM block were ever touched, found without touching them */

#include "presence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

/* Documentation/admin-guide/mm/pagemap.rst of the kernel. */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_BATCH 512 /* entries read at a time: 4 KiB, 2 MiB of memory */

/*
 * Whether all of the block is private anonymous memory. Of a shared mapping
 * the page table tells nothing: another process may have written the page, or
 * it may be swapped out, which looks like a hole there.
 */
static bool is_private_anonymous(const VmfRamBlock *block, const char *maps)
{
    uint64_t at = (uintptr_t)block->host, end = at + block->length;

    for (const char *line = maps; *line && at < end;) {
        uint64_t from, to, inode;
        char perms[5];
        const char *next = strchr(line, '\n');

        if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &from, &to, perms, &inode) != 4) {
            return false;
        }
        if (from <= at && at < to) {
            if (perms[3] != 'p' || inode != 0) {
                return false;
            }
            at = to;
        }
        if (!next) {
            break;
        }
        line = next + 1;
    }
    return at >= end;
}

bool presence_init(Presence *presence, const VmfRamBlocks *blocks, GError **error)
{
    g_autofree char *maps = NULL;
    unsigned count = vmf_ram_blocks_count(blocks);

    (void)error;
    presence->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    presence->kinds = g_new0(PresenceKind, MAX(count, 1));
    presence->pagemap =
        VMF_FAULT("open pagemap") ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (VMF_FAULT("read maps") || !g_file_get_contents("/proc/self/maps", &maps, NULL, NULL)) {
        return true; /* without it nothing is known, and everything counts as touched */
    }
    for (unsigned i = 0; i < count; i++) {
        const VmfRamBlock *block = vmf_ram_blocks_get(blocks, i);

        if (block->fd >= 0) {
            presence->kinds[i] = PRESENCE_FILE;
        } else if (presence->pagemap >= 0 && is_private_anonymous(block, maps)) {
            presence->kinds[i] = PRESENCE_PAGEMAP;
        }
    }
    return true;
}

void presence_clear(Presence *presence)
{
    if (presence->pagemap >= 0) {
        close(presence->pagemap);
    }
    presence->pagemap = -1;
    g_clear_pointer(&presence->kinds, g_free);
}

static bool pagemap_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                        uint64_t end, uint64_t *until)
{
    const uint64_t page_size = presence->page_size;
    uint64_t page = ((uintptr_t)block->host + offset) / page_size;
    uint64_t last = ((uintptr_t)block->host + end - 1) / page_size;
    uint64_t entries[PAGEMAP_BATCH];
    bool touched = false, first = true;

    while (page <= last) {
        size_t want = MIN(last - page + 1, PAGEMAP_BATCH);
        ssize_t n = pread(presence->pagemap, entries, want * 8, (off_t)(page * 8));

        if (n < 8) { /* cannot tell: touched */
            *until = end;
            return true;
        }
        for (ssize_t i = 0; i < n / 8; i++, page++) {
            bool this_one = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;

            if (first) {
                touched = this_one;
                first = false;
            } else if (this_one != touched) {
                *until = page * page_size - (uintptr_t)block->host;
                return touched;
            }
        }
    }
    *until = end;
    return touched;
}

static bool file_run(const VmfRamBlock *block, uint64_t offset, uint64_t end, uint64_t *until)
{
    off_t at = (off_t)(block->fd_offset + offset);
    off_t data = lseek(block->fd, at, SEEK_DATA);
    off_t hole;

    if (data < 0 && errno == ENXIO) { /* no data from here to the end of the file */
        *until = end;
        return false;
    }
    if (data > at) {
        *until = MIN((uint64_t)data - block->fd_offset, end);
        return false;
    }
    hole = data < 0 ? -1 : lseek(block->fd, at, SEEK_HOLE);
    *until = hole < 0 ? end : MIN((uint64_t)hole - block->fd_offset, end);
    return true;
}

bool presence_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                  uint64_t *until)
{
    switch (presence->kinds[block->index]) {
    case PRESENCE_PAGEMAP:
        return pagemap_run(presence, block, offset, end, until);
    case PRESENCE_FILE:
        return file_run(block, offset, end, until);
    case PRESENCE_UNKNOWN:
        break;
    }
    *until = end;
    return true;
}
