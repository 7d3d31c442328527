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
#define PAGEMAP_FIRST 16   /* entries read first: the run may end soon */
#define PAGEMAP_BATCH 8192 /* in a long run: 64 KiB at a time, for 32 MiB of memory */

/* What may be asked about a mapping, by its line in /proc/self/maps. */
static PresenceKind kind_of_mapping(const char *perms, uint64_t inode, bool has_file)
{
    if (perms[3] == 's') {
        return has_file ? PRESENCE_FILE : PRESENCE_UNKNOWN;
    }
    return inode == 0 ? PRESENCE_PAGEMAP : PRESENCE_UNKNOWN;
}

/*
 * What may be asked about a block: the answer has to hold for all mappings
 * that it lies in. Of a shared mapping the page table tells nothing: another
 * process may have written the page, or it may be swapped out, which looks like
 * a hole there. Of a private mapping of a file neither tells.
 */
static PresenceKind kind_of_block(const VmfRamBlock *block, const char *maps)
{
    uint64_t at = (uintptr_t)block->host, end = at + block->length;
    PresenceKind kind = PRESENCE_UNKNOWN;

    for (const char *line = maps; line && *line && at < end;) {
        uint64_t from, to, inode;
        char perms[5];
        const char *next = strchr(line, '\n');

        if (sscanf(line,
                   "%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER
                   "x %4s %*x %*x:%*x %" G_GINT64_MODIFIER "u",
                   &from, &to, perms, &inode) != 4) {
            return PRESENCE_UNKNOWN;
        }
        if (from <= at && at < to) {
            PresenceKind this_one = kind_of_mapping(perms, inode, block->fd >= 0);

            if (this_one == PRESENCE_UNKNOWN || (kind != PRESENCE_UNKNOWN && this_one != kind)) {
                return PRESENCE_UNKNOWN;
            }
            kind = this_one;
            at = to;
        }
        line = next ? next + 1 : NULL;
    }
    return at >= end ? kind : PRESENCE_UNKNOWN;
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
        PresenceKind kind = kind_of_block(vmf_ram_blocks_get(blocks, i), maps);

        if (kind != PRESENCE_PAGEMAP || presence->pagemap >= 0) {
            presence->kinds[i] = kind;
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
                        uint64_t end, uint64_t touched_end, uint64_t *until)
{
    const uint64_t page_size = presence->page_size;
    uint64_t page = ((uintptr_t)block->host + offset) / page_size;
    uint64_t last = ((uintptr_t)block->host + end - 1) / page_size;
    uint64_t entries[PAGEMAP_BATCH];
    bool touched = false, first = true;
    uint64_t batch = PAGEMAP_FIRST;

    while (page <= last) {
        size_t want = MIN(last - page + 1, batch);
        ssize_t n = VMF_FAULT("pread pagemap")
                        ? -1
                        : pread(presence->pagemap, entries, want * 8, (off_t)(page * 8));

        batch = PAGEMAP_BATCH;
        if (n < 8) { /* cannot tell, so touched; what was read before stays as it is */
            *until = first || touched ? end : page * page_size - (uintptr_t)block->host;
            return first || touched;
        }
        for (ssize_t i = 0; i < n / 8; i++, page++) {
            bool this_one = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;

            if (first) {
                touched = this_one;
                first = false;
                end = touched ? touched_end : end;
                last = ((uintptr_t)block->host + end - 1) / page_size;
            } else if (this_one != touched) {
                *until = page * page_size - (uintptr_t)block->host;
                return touched;
            }
        }
    }
    *until = end;
    return touched;
}

static bool file_run(const VmfRamBlock *block, uint64_t offset, uint64_t end, uint64_t touched_end,
                     uint64_t *until)
{
    off_t at = (off_t)(block->fd_offset + offset);
    off_t data = VMF_FAULT("lseek") ? (errno = EIO, -1) : lseek(block->fd, at, SEEK_DATA);
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
    /* The file may change meanwhile: a hole right here only means that there is one by now. */
    *until = hole <= at ? end : MIN((uint64_t)hole - block->fd_offset, touched_end);
    return true;
}

bool presence_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                  uint64_t touched_end, uint64_t *until)
{
    switch (presence->kinds[block->index]) {
    case PRESENCE_PAGEMAP:
        return pagemap_run(presence, block, offset, end, touched_end, until);
    case PRESENCE_FILE:
        return file_run(block, offset, end, touched_end, until);
    case PRESENCE_UNKNOWN:
        break;
    }
    *until = end;
    return true;
}

void presence_whole_pages(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                          uint64_t end, uintptr_t *from, uintptr_t *to)
{
    const uintptr_t mask = presence->page_size - 1;

    *from = ((uintptr_t)block->host + offset + mask) & ~mask;
    *to = ((uintptr_t)block->host + end) & ~mask;
}
