/* SPDX-License-Identifier: BSD-2-Clause */
/* presence.c -- which pages of a RAM block were ever touched, found without touching them */

#include "presence.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "mappings.h"

/* Source: the kernel's Documentation/admin-guide/mm/pagemap.rst. */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FIRST 16   /* entries that are read first, because a run may be short */
#define PAGEMAP_BATCH 4096 /* in a long run: 32 KiB at a time, for 16 MiB of memory */

/* --- what may be asked about a block --- */

/*
 * Whether holes of the file tell what was never written, and it is the file of that mapping. They
 * do where only the page cache holds the data (statfs(2)). Other file systems do not look at what
 * was written to a mapping.
 */
static bool tells_holes(int fd, const Mapping *mapping)
{
    struct statfs system;
    struct stat file;

    return fd >= 0 && fstatfs(fd, &system) == 0 && fstat(fd, &file) == 0 &&
           (system.f_type == TMPFS_MAGIC || system.f_type == HUGETLBFS_MAGIC) &&
           file.st_ino == mapping->inode && major(file.st_dev) == mapping->dev_major &&
           minor(file.st_dev) == mapping->dev_minor;
}

/*
 * The page table tells nothing of a shared mapping: another process may have written the page, or
 * it is swapped out, which looks like a hole. Neither page table nor holes tell it of a private
 * mapping of a file. A page that a userfaultfd handler still has to fill looks untouched in both.
 */
static PresenceKind kind_of_mapping(const Mapping *mapping, const VmfRamBlock *block)
{
    if (mapping->lazy) {
        return PRESENCE_UNKNOWN;
    }
    if (mapping->shared) {
        return tells_holes(block->fd, mapping) ? PRESENCE_FILE : PRESENCE_UNKNOWN;
    }
    return mapping->inode == 0 ? PRESENCE_PAGEMAP : PRESENCE_UNKNOWN;
}

static uint64_t file_offset(const Mapping *mapping, const VmfRamBlock *block)
{
    return mapping->offset - mapping->from + (uintptr_t)block->host;
}

static bool unusable(const VmfRamBlock *block, uint64_t from, uint64_t to, const char *why,
                     GError **error)
{
    const uint64_t start = (uintptr_t)block->host;

    from = MAX(from, start);
    to = MIN(to, start + block->length);
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                "RAM block \"%s\", bytes 0x%" G_GINT64_MODIFIER "x to 0x%" G_GINT64_MODIFIER
                "x: %s (addresses 0x%" G_GINT64_MODIFIER "x to 0x%" G_GINT64_MODIFIER
                "x of this process)",
                block->name, from - start, to - start, why, from, to);
    return false;
}

static bool check_use(const VmfRamBlock *block, const Mapping *mapping, PresenceUse use,
                      GError **error)
{
    if (!mapping->readable) {
        return unusable(block, mapping->from, mapping->to, "the memory is mapped without access",
                        error);
    }
    if (use == PRESENCE_WRITE && !mapping->writable) {
        return unusable(block, mapping->from, mapping->to,
                        "a destination writes to it, but the memory is mapped read-only", error);
    }
    return true;
}

/* One answer has to hold for all mappings that the block lies in. */
static bool look_at_block(const Mappings *mappings, const VmfRamBlock *block, PresenceUse use,
                          PresenceBlock *found, GError **error)
{
    uint64_t at = (uintptr_t)block->host;
    const uint64_t start = at, end = at + block->length;
    bool same = true;

    for (unsigned i = mappings_search(mappings, at); at < end; i++) {
        const Mapping *mapping =
            i < mappings->list->len ? &g_array_index(mappings->list, Mapping, i) : NULL;
        PresenceKind kind;

        if (!mapping || mapping->from > at) {
            return unusable(block, at, mapping ? mapping->from : end, "no memory is mapped there",
                            error);
        }
        if (!check_use(block, mapping, use, error)) {
            return false;
        }
        if (same) {
            kind = kind_of_mapping(mapping, block);
            if (at == start) {
                found->kind = kind;
                found->own = true;
                found->file_offset = file_offset(mapping, block);
            }
            same = kind == found->kind &&
                   (kind != PRESENCE_FILE || file_offset(mapping, block) == found->file_offset);
            found->own &= kind == PRESENCE_PAGEMAP && !mapping->handed;
        }
        at = mapping->to;
    }
    if (!same || !mappings->flags_known) {
        found->kind = PRESENCE_UNKNOWN;
        found->own = false;
    }
    return true;
}

static bool look_at_blocks(Presence *presence, const VmfRamBlocks *blocks, PresenceUse use,
                           GError **error)
{
    Mappings mappings;
    bool ok = true;

    mappings_read(&mappings);
    for (unsigned i = 0; ok && i < presence->block_count && mappings.list->len; i++) {
        PresenceBlock *found = &presence->blocks[i];

        if (!vmf_ram_blocks_get(blocks, i)->host) {
            continue; /* nobody knows yet where it is, so it counts as touched */
        }
        ok = look_at_block(&mappings, vmf_ram_blocks_get(blocks, i), use, found, error);
        if (found->kind == PRESENCE_PAGEMAP && presence->pagemap < 0) {
            found->kind = PRESENCE_UNKNOWN;
            found->own = false;
        }
    }
    mappings_clear(&mappings);
    return ok;
}

/* --- the page table --- */

/* PAGEMAP_SCAN of linux/fs.h. Headers before Linux 6.7 lack it. */
typedef struct ScanArguments {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
} ScanArguments;
typedef struct ScanRegion {
    uint64_t start, end, categories;
} ScanRegion;
#define SCAN_IOCTL _IOWR('f', 16, ScanArguments)
#define SCAN_PRESENT (1ull << 3)
#define SCAN_SWAPPED (1ull << 4)

/* Finds the first region of touched pages. An empty region at `to': there is none. */
static bool scan_touched(int pagemap, uint64_t from, uint64_t to, ScanRegion *region)
{
    ScanArguments arguments = {
        .size = sizeof(arguments),
        .start = from,
        .end = to,
        .vec = (uintptr_t)region,
        .vec_len = 1,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
    };
    int n;

    *region = (ScanRegion){.start = to, .end = to};
    n = VMF_FAULT("ioctl pagemap") ? (errno = ENOTTY, -1) : ioctl(pagemap, SCAN_IOCTL, &arguments);
    return n >= 0;
}

static uint64_t offset_of(const VmfRamBlock *block, uint64_t address)
{
    return address - (uintptr_t)block->host;
}

static uint64_t page_end(const Presence *presence, const VmfRamBlock *block, uint64_t offset)
{
    const uint64_t mask = presence->page_size - 1;

    return ((uintptr_t)block->host + offset + mask) & ~mask;
}

static bool scan_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                     uint64_t end, uint64_t touched_end, uint64_t *until)
{
    const uint64_t from = ((uintptr_t)block->host + offset) & ~((uint64_t)presence->page_size - 1);
    const uint64_t middle = page_end(presence, block, end);
    ScanRegion region, more;

    /* Past `end' only touched memory is of interest. */
    if (!scan_touched(presence->pagemap, from, middle, &region)) {
        *until = end; /* unknown counts as touched */
        return true;
    }
    if (region.start > from) {
        *until = MIN(offset_of(block, region.start), end);
        return false;
    }
    if (region.end >= middle && touched_end > end &&
        scan_touched(presence->pagemap, middle, page_end(presence, block, touched_end), &more) &&
        more.start == middle) {
        region.end = more.end;
    }
    *until = MIN(offset_of(block, region.end), touched_end);
    return true;
}

/*
 * While another thread splits or discards a huge page, kernels before 6.5 may leave out its
 * entries. All later entries move forward then, to pages that they do not belong to. So a page
 * counts as untouched only after two readings.
 */
static bool read_entries(const Presence *presence, uint64_t page, size_t count, uint64_t *entries)
{
    uint64_t again[PAGEMAP_BATCH];
    const size_t size = count * sizeof(*entries);
    const off_t at = (off_t)(page * sizeof(*entries));

    if (VMF_FAULT("pread pagemap") ||
        presence->read(presence->pagemap, entries, size, at) != (ssize_t)size ||
        presence->read(presence->pagemap, again, size, at) != (ssize_t)size) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        entries[i] |= again[i];
    }
    return true;
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
        const size_t count = MIN(last - page + 1, batch);

        batch = PAGEMAP_BATCH;
        if (!read_entries(presence, page, count, entries)) {
            /* Unknown counts as touched. What was read before keeps its answer. */
            *until = first || touched ? end : offset_of(block, page * page_size);
            return first || touched;
        }
        for (size_t i = 0; i < count; i++, page++) {
            bool this_one = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;

            if (first) {
                touched = this_one;
                first = false;
                end = touched ? touched_end : end;
                last = ((uintptr_t)block->host + end - 1) / page_size;
            } else if (this_one != touched) {
                *until = offset_of(block, page * page_size);
                return touched;
            }
        }
    }
    *until = end;
    return touched;
}

/* --- the file --- */

static bool file_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset,
                     uint64_t end, uint64_t touched_end, uint64_t *until)
{
    const uint64_t start = presence->blocks[block->index].file_offset;
    const off_t at = (off_t)(start + offset);
    off_t data = VMF_FAULT("lseek") ? (errno = EIO, -1) : lseek(block->fd, at, SEEK_DATA);
    off_t hole;

    if (data < 0 && errno == ENXIO) { /* there is no data until the end of the file */
        *until = end;
        return false;
    }
    if (data > at) {
        *until = MIN((uint64_t)data - start, end);
        return false;
    }
    hole = data < 0 ? -1 : lseek(block->fd, at, SEEK_HOLE);
    /* The file may change meanwhile. A hole at `at' only means that there is one by now. */
    *until = hole <= at ? end : MIN((uint64_t)hole - start, touched_end);
    return true;
}

/* --- all of it --- */

bool presence_init(Presence *presence, const VmfRamBlocks *blocks, PresenceUse use, GError **error)
{
    ScanRegion region;

    presence->read = pread;
    presence->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    presence->block_count = vmf_ram_blocks_count(blocks);
    presence->blocks = g_new0(PresenceBlock, MAX(presence->block_count, 1));
    presence->pagemap =
        VMF_FAULT("open pagemap") ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    presence->scan = presence->pagemap >= 0 && scan_touched(presence->pagemap, 0, 0, &region);
    return look_at_blocks(presence, blocks, use, error);
}

void presence_clear(Presence *presence)
{
    if (presence->pagemap >= 0) {
        close(presence->pagemap);
    }
    presence->pagemap = -1;
    g_clear_pointer(&presence->blocks, g_free);
}

bool presence_run(const Presence *presence, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                  uint64_t touched_end, uint64_t *until)
{
    switch (presence->blocks[block->index].kind) {
    case PRESENCE_PAGEMAP:
        return (presence->scan ? scan_run : pagemap_run)(presence, block, offset, end, touched_end,
                                                         until);
    case PRESENCE_FILE:
        return file_run(presence, block, offset, end, touched_end, until);
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
