/* SPDX-License-Identifier: BSD-2-Clause */
/* local-discards.c -- guest RAM that this process's QEMU gives back while it migrates */

#include "local-discards.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

typedef struct Range {
    VmfRamBlocks *blocks;
    const VmfRamBlock *block;
    bool shared; /* of the file that follows */
    unsigned major, minor;
    uint64_t inode, file_offset; /* where the block begins in the file */
} Range;

/* Immutable once it is published, so that readers need no lock. */
typedef struct Ranges {
    unsigned count;
    Range range[];
} Ranges;

static struct {
    GMutex lock;      /* of those that publish */
    Ranges *ranges;   /* atomic */
    unsigned readers; /* atomic */
} known;

/* --- publishing --- */

/* Replaces the table, and frees the old one when nobody reads it. The caller has the lock. */
static void publish_locked(Ranges *ranges)
{
    Ranges *old = known.ranges;

    __atomic_store_n(&known.ranges, ranges, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&known.readers, __ATOMIC_SEQ_CST)) {
        g_usleep(10);
    }
    g_free(old);
}

static Ranges *copy_locked(unsigned extra, const VmfRamBlocks *without)
{
    const unsigned count = known.ranges ? known.ranges->count : 0;
    Ranges *copy = g_malloc0(sizeof(*copy) + (count + extra) * sizeof(Range));

    for (unsigned i = 0; i < count; i++) {
        if (known.ranges->range[i].blocks != without) {
            copy->range[copy->count++] = known.ranges->range[i];
        }
    }
    return copy;
}

/* Finds the file behind the block's first byte. */
static void find_file(Range *range)
{
    const uintptr_t host = (uintptr_t)range->block->host;
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];

    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned long from, to, offset, inode;
        unsigned major, minor;
        char flags[5];

        if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &from, &to, flags, &offset, &major, &minor,
                   &inode) == 7 &&
            from <= host && host < to) {
            range->shared = flags[3] == 's' && inode;
            range->major = major;
            range->minor = minor;
            range->inode = inode;
            range->file_offset = offset + (host - from);
            break;
        }
    }
    if (maps) {
        fclose(maps);
    }
}

void local_discards_add(VmfRamBlocks *blocks, const VmfRamBlock *block)
{
    Range range = {.blocks = blocks, .block = block};
    Ranges *ranges;

    find_file(&range);
    g_mutex_lock(&known.lock);
    ranges = copy_locked(1, NULL);
    ranges->range[ranges->count++] = range;
    publish_locked(ranges);
    g_mutex_unlock(&known.lock);
}

void local_discards_remove(VmfRamBlocks *blocks)
{
    g_mutex_lock(&known.lock);
    publish_locked(copy_locked(0, blocks));
    g_mutex_unlock(&known.lock);
}

/* --- discards --- */

static const Ranges *begin_reading(void)
{
    __atomic_add_fetch(&known.readers, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&known.ranges, __ATOMIC_SEQ_CST);
}

static void end_reading(void)
{
    __atomic_sub_fetch(&known.readers, 1, __ATOMIC_SEQ_CST);
}

/* Bytes [from, to) of something in which the block lies at [at, at + its length). */
static void tell(const Range *range, uint64_t at, uint64_t from, uint64_t to)
{
    const uint64_t end = at + range->block->length;

    from = MAX(from, at);
    to = MIN(to, end);
    if (from < to) {
        vmf_ram_discarded(range->blocks, range->block, from - at, to - from);
    }
}

void local_discards_memory(void *address, size_t length)
{
    const uintptr_t from = (uintptr_t)address;
    const Ranges *ranges = begin_reading();

    for (unsigned i = 0; ranges && i < ranges->count; i++) {
        tell(&ranges->range[i], (uintptr_t)ranges->range[i].block->host, from, from + length);
    }
    end_reading();
}

void local_discards_file(int fd, uint64_t offset, uint64_t length)
{
    const Ranges *ranges = begin_reading();
    struct stat file;

    if (ranges && ranges->count && fstat(fd, &file) == 0) {
        for (unsigned i = 0; i < ranges->count; i++) {
            const Range *range = &ranges->range[i];

            if (range->shared && range->inode == file.st_ino &&
                range->major == major(file.st_dev) && range->minor == minor(file.st_dev)) {
                tell(range, range->file_offset, offset, offset + length);
            }
        }
    }
    end_reading();
}
