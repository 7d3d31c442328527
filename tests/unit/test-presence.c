/* SPDX-License-Identifier: BSD-2-Clause */
/* test-presence.c -- when memory counts as untouched, by its mapping, its page table and its file
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>

#include "support/lazy.h"
#include "ram/mappings.h"
#include "ram/presence.h"
#include "ram/ram-scan.h"
#include "support/resident.h"

#define PAGE 4096ull
#define MIB (1024ull * 1024)
#define PAGES 2048u

static uint8_t *map(uint64_t size, int protection, int flags, int fd, uint64_t offset)
{
    uint8_t *memory = mmap(NULL, size, protection, flags, fd, (off_t)offset);

    assert_true(memory != MAP_FAILED);
    madvise(memory, size, MADV_NOHUGEPAGE); /* pages are counted */
    return memory;
}

static uint8_t *map_private(uint64_t size)
{
    return map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A set with one block. */
static VmfRamBlocks *one_block(void *memory, uint64_t size, int fd, uint64_t fd_offset)
{
    VmfRamBlocks *blocks = vmf_ram_blocks_new();

    assert_non_null(
        vmf_ram_blocks_add_shared(blocks, "ram", memory, size, 4096, fd, fd_offset, NULL));
    return blocks;
}

/* Counts the pages of the set's one block that a scan finds to be data. */
static unsigned data_pages(VmfRamBlocks *blocks)
{
    const VmfRamBlock *block = vmf_ram_blocks_get(blocks, 0);
    RamScan *scan = ram_scan_new(blocks, PRESENCE_READ, NULL);
    uint64_t at = 0, bytes = 0;
    RamRun run;

    assert_non_null(scan);
    while (ram_scan_next(scan, block, &at, block->length, &run)) {
        bytes += run.zero ? 0 : run.length;
    }
    ram_scan_free(scan);
    return (unsigned)(bytes / PAGE);
}

/* --- userfaultfd --- */

static void userfaultfd__pages_that_a_handler_owes_are_no_zero_pages(void **state)
{
    uint8_t *memory = map_private(64 * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, -1, 0);
    Lazy lazy;

    (void)state;
    /* In the middle: one mapping of three. */
    lazy_start(&lazy, memory + 16 * PAGE, 32 * PAGE, false);
    assert_int_equal(data_pages(blocks), 32);
    assert_int_equal(lazy.filled, 32);
    lazy_stop(&lazy);
    munmap(memory, 64 * PAGE);
}

static void userfaultfd__holes_that_a_handler_owes_are_no_zero_pages(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t *memory;
    Lazy lazy;

    (void)state;
    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    memory = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    {
        g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, fd, 0);

        lazy_start(&lazy, memory, 64 * PAGE, false);
        assert_int_equal(data_pages(blocks), 64);
        lazy_stop(&lazy);
    }
    munmap(memory, 64 * PAGE);
    close(fd);
}

/* Giving it back would wait for the handler, and making it resident would ask it for every page. */
static void userfaultfd__memory_is_not_given_back(void **state)
{
    uint8_t *memory = map_private(64 * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, -1, 0);
    RamScan *scan;
    Lazy lazy;

    (void)state;
    lazy_start(&lazy, memory, 64 * PAGE, true);
    scan = ram_scan_new(blocks, PRESENCE_WRITE, NULL);
    ram_scan_release(scan, vmf_ram_blocks_get(blocks, 0), 0, 64 * PAGE);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(memory[i * PAGE], 0); /* not the handler's content */
    }
    ram_scan_free(scan);
    lazy_stop(&lazy);
    assert_int_equal(lazy.events, 0);
    munmap(memory, 64 * PAGE);
}

/* --- files --- */

/* The mapping tells where the block begins in the file, whatever the caller says. */
static void file__holes_are_looked_for_where_the_block_is_mapped(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t *memory;

    (void)state;
    assert_int_equal(ftruncate(fd, MIB + 64 * PAGE), 0);
    memory = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, MIB);
    memset(memory + 8 * PAGE, 1, 4 * PAGE);
    {
        g_autoptr(VmfRamBlocks) wrong = one_block(memory, 64 * PAGE, fd, 0);
        g_autoptr(VmfRamBlocks) part = one_block(memory + 9 * PAGE, 16 * PAGE, fd, 0);

        assert_int_equal(data_pages(wrong), 4);
        assert_int_equal(data_pages(part), 3);
        assert_int_equal(resident_pages(memory, 64 * PAGE), 4);
    }
    munmap(memory, 64 * PAGE);
    close(fd);
}

/* The pieces of the block are in another order in the file. */
static void file__pieces_in_another_order_are_read_in_full(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t *memory = map_private(64 * PAGE);

    (void)state;
    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    assert_true(mmap(memory, 32 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                     32 * PAGE) == memory);
    assert_true(mmap(memory + 32 * PAGE, 32 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                     fd, 0) == memory + 32 * PAGE);
    memset(memory, 1, PAGE);
    memset(memory + 50 * PAGE, 1, 2 * PAGE);
    {
        g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, fd, 0);

        assert_int_equal(data_pages(blocks), 3);
    }
    munmap(memory, 64 * PAGE);
    close(fd);
}

static void file__that_is_not_the_mapped_one_tells_nothing(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC), other = memfd_create("other", MFD_CLOEXEC);
    uint8_t *memory;

    (void)state;
    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    assert_int_equal(ftruncate(other, 64 * PAGE), 0);
    memory = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memset(memory + 8 * PAGE, 1, 4 * PAGE);
    {
        g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, other, 0);

        assert_int_equal(data_pages(blocks), 4);
    }
    munmap(memory, 64 * PAGE);
    close(fd);
    close(other);
}

/* An open file on a file system that is on a disk. */
static int disk_file(void)
{
    g_autofree char *here = g_get_current_dir();
    const char *const folders[] = {here, "/var/tmp", g_get_home_dir(), "/"};

    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(folders[i], "vmferry-test-XXXXXX", NULL);
        struct statfs system;
        int fd = g_mkstemp(path);

        if (fd >= 0) {
            g_unlink(path);
            if (fstatfs(fd, &system) == 0 && system.f_type != TMPFS_MAGIC) {
                return fd;
            }
            close(fd);
        }
    }
    fail_msg("no folder for a file outside tmpfs");
    return -1;
}

/* What was written to the mapping need not be where the file system looks for data. */
static void file__holes_of_other_file_systems_are_not_believed(void **state)
{
    int fd = disk_file();
    Presence presence = {0};
    uint8_t *memory;

    (void)state;
    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    memory = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    {
        g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, fd, 0);
        uint64_t until;

        assert_true(presence_init(&presence, blocks, PRESENCE_READ, NULL));
        assert_true(presence_run(&presence, vmf_ram_blocks_get(blocks, 0), 0, 64 * PAGE, 64 * PAGE,
                                 &until));
        assert_int_equal(until, 64 * PAGE);
        presence_clear(&presence);
    }
    munmap(memory, 64 * PAGE);
    close(fd);
}

/* --- the page table --- */

/*
 * A pread() of the pagemap in which, every other time, the entries of one huge page are missing:
 * later entries come 512 places too early.
 */
static unsigned readings;

static ssize_t sliding_read(int fd, void *to, size_t size, off_t offset)
{
    enum { LEFT_OUT = 512 };
    const size_t entries = size / 8;
    g_autofree uint64_t *all = g_new(uint64_t, entries + LEFT_OUT);
    uint64_t *result = to;

    assert_int_equal(pread(fd, all, (entries + LEFT_OUT) * 8, offset), (entries + LEFT_OUT) * 8);
    if (readings++ % 2 == 0 && entries > 64) {
        memcpy(result, all, 64 * 8);
        memcpy(result + 64, all + 64 + LEFT_OUT, (entries - 64) * 8);
    } else {
        memcpy(result, all, size);
    }
    return (ssize_t)size;
}

static void pagemap__entries_that_slide_hide_no_page(void **state)
{
    const uint64_t size = 2 * PAGES * PAGE; /* what is scanned, and as much after it */
    uint8_t *memory = map_private(size);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory, PAGES * PAGE, -1, 0);
    const VmfRamBlock *block = vmf_ram_blocks_get(blocks, 0);
    Presence presence = {0};
    uint64_t at = 0, until;
    unsigned touched = 0;

    (void)state;
    memset(memory + 100 * PAGE, 1, 300 * PAGE);
    assert_true(presence_init(&presence, blocks, PRESENCE_READ, NULL));
    presence.scan = false; /* as before Linux 6.7 */
    presence.read = sliding_read;
    readings = 0;
    while (at < block->length) {
        bool this_one = presence_run(&presence, block, at, block->length, block->length, &until);

        for (uint64_t page = at / PAGE; page < until / PAGE; page++) {
            /* More may count as touched, and never less. */
            assert_true(this_one || page < 100 || page >= 400);
            touched += this_one;
        }
        at = until;
    }
    assert_true(readings > 2);
    assert_true(touched >= 300 && touched < PAGES);
    presence_clear(&presence);
    munmap(memory, size);
}

static void pagemap__scan_and_entries_find_the_same(void **state)
{
    uint8_t *memory = map_private(PAGES * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory + 100, PAGES * PAGE - 777, -1, 0);
    const VmfRamBlock *block = vmf_ram_blocks_get(blocks, 0);
    g_autoptr(GRand) random = g_rand_new_with_seed(5);
    Presence presence = {0};

    (void)state;
    assert_true(presence_init(&presence, blocks, PRESENCE_READ, NULL));
    for (unsigned turn = 0; turn < 200; turn++) {
        const uint64_t page = (uint64_t)g_rand_int_range(random, 0, PAGES - 40);
        const uint64_t offset = (uint64_t)g_rand_int_range(random, 0, (gint)block->length - 1);
        const uint64_t end =
            (uint64_t)g_rand_int_range(random, (gint)offset + 1, (gint)block->length + 1);
        const uint64_t far = MAX(end, block->length / 2);
        uint64_t until[2];
        bool touched[2];

        memset(memory + page * PAGE, 1, (uint64_t)g_rand_int_range(random, 1, 40) * PAGE);
        for (unsigned way = 0; way < 2; way++) {
            presence.scan = way && presence.scan;
            touched[way] = presence_run(&presence, block, offset, end, far, &until[way]);
            assert_true(until[way] > offset && until[way] <= (touched[way] ? far : end));
        }
        assert_int_equal(touched[0], touched[1]);
        assert_int_equal(until[0], until[1]);
    }
    presence_clear(&presence);
    munmap(memory, PAGES * PAGE);
}

/* --- which use a mapping allows --- */

static void assert_unusable(VmfRamBlocks *blocks, PresenceUse use, const char *range,
                            const char *why)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *pattern = g_strdup_printf("*\"ram\"*%s*%s*", range, why);

    assert_null(ram_scan_new(blocks, use, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    if (!g_pattern_match_simple(pattern, error->message)) {
        fail_msg("\"%s\" does not match \"%s\"", error->message, pattern);
    }
}

static void use__destination_refuses_read_only_memory(void **state)
{
    uint8_t *memory = map_private(64 * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory + 100, 60 * PAGE, -1, 0);

    (void)state;
    memset(memory, 1, 64 * PAGE);
    assert_int_equal(mprotect(memory + 16 * PAGE, 2 * PAGE, PROT_READ), 0);
    assert_unusable(blocks, PRESENCE_WRITE, "0xff9c to 0x11f9c", "read-only");
    assert_int_equal(data_pages(blocks), 60); /* a source reads it */
    assert_int_equal(mprotect(memory + 16 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(mprotect(memory + 60 * PAGE, 4 * PAGE, PROT_NONE), 0);
    assert_unusable(blocks, PRESENCE_WRITE, "0x3bf9c to 0x3c000", "without access");
    assert_unusable(blocks, PRESENCE_READ, "0x3bf9c to 0x3c000", "without access");
    munmap(memory, 64 * PAGE);
}

static void use__block_that_is_not_wholly_mapped_is_refused(void **state)
{
    uint8_t *memory = map_private(64 * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, -1, 0);

    (void)state;
    munmap(memory + 8 * PAGE, 8 * PAGE);
    assert_unusable(blocks, PRESENCE_READ, "0x8000 to 0x10000", "no memory is mapped");
    munmap(memory + 16 * PAGE, 48 * PAGE);
    assert_unusable(blocks, PRESENCE_WRITE, "0x8000 to", "no memory is mapped");
    munmap(memory, 8 * PAGE);
}

/* --- without /proc --- */

/*
 * Nothing can be opened, so nothing of /proc can be read. All memory counts as touched, and all
 * works.
 */
static void no_proc__everything_counts_as_touched(void **state)
{
    uint8_t *memory = map_private(64 * PAGE);
    g_autoptr(VmfRamBlocks) blocks = one_block(memory, 64 * PAGE, -1, 0);
    int status;
    pid_t child;

    (void)state;
    memset(memory + 8 * PAGE, 1, 4 * PAGE);
    child = fork();
    if (child == 0) {
        const struct rlimit none = {0};
        Presence presence = {0};
        uint64_t until = 0;
        bool ok = setrlimit(RLIMIT_NOFILE, &none) == 0 &&
                  presence_init(&presence, blocks, PRESENCE_WRITE, NULL) &&
                  presence_run(&presence, vmf_ram_blocks_get(blocks, 0), 0, 64 * PAGE, 64 * PAGE,
                               &until) &&
                  until == 64 * PAGE && !presence.blocks[0].own && data_pages(blocks) == 4;

        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    munmap(memory, 64 * PAGE);
}

/* --- the text of the kernel --- */

static void mappings__are_parsed(void **state)
{
    static const char text[] =
        "00400000-00401000 r--p 00000000 08:01 131 /bin/odd name\\012with 7f00-8000 rw-p\n"
        "Size:                  4 kB\n"
        "VmFlags: rd mr mw me umx sd \n"
        "7f0000000000-7f0000010000 rw-s fffff000 00:1d 4294967297   /memfd:um (deleted)\n"
        "Rss:                   0 kB\n"
        "VmFlags: rd wr sh mr mw me ms um sd \n"
        "7f0000008000-7f0000018000 rw-p 00000000 00:00 0 \n" /* overlaps, because it has changed */
        "VmFlags: rd uw \n"
        "7f0000020000-7f0000030000 ---p 00000000 00:00 0 \n"
        "VmFlags: mr mw me uw dc nr\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
        "VmFlags: ex ";
    Mappings mappings;
    const Mapping *m;

    (void)state;
    mappings_parse(&mappings, text);
    assert_int_equal(mappings.list->len, 4);
    assert_true(mappings.flags_known);
    m = &g_array_index(mappings.list, Mapping, 0);
    assert_true(m->readable && !m->writable && !m->shared && !m->lazy && !m->handed);
    assert_int_equal(m->dev_major, 8);
    m = &g_array_index(mappings.list, Mapping, 1);
    assert_true(m->writable && m->shared && m->lazy && m->handed);
    assert_true(!m->unforked && !m->unreserved);
    assert_int_equal(m->offset, 0xfffff000);
    assert_int_equal(m->inode, 4294967297);
    assert_int_equal(m->dev_minor, 0x1d);
    m = &g_array_index(mappings.list, Mapping, 2);
    assert_true(!m->readable && !m->lazy && m->handed && m->unforked && m->unreserved);
    assert_int_equal(mappings_search(&mappings, 0), 0);
    assert_int_equal(mappings_search(&mappings, 0x400fff), 0);
    assert_int_equal(mappings_search(&mappings, 0x401000), 1);
    assert_int_equal(mappings_search(&mappings, 0x7f000002ffff), 2);
    assert_int_equal(mappings_search(&mappings, UINT64_MAX), 4);
    mappings_clear(&mappings);
    mappings_parse(&mappings, "00400000-00401000 r--p 00000000 08:01 131\nnonsense\n0-0 x\n7-");
    assert_int_equal(mappings.list->len, 1);
    assert_false(mappings.flags_known);
    mappings_clear(&mappings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(userfaultfd__pages_that_a_handler_owes_are_no_zero_pages),
        cmocka_unit_test(userfaultfd__holes_that_a_handler_owes_are_no_zero_pages),
        cmocka_unit_test(userfaultfd__memory_is_not_given_back),
        cmocka_unit_test(file__holes_are_looked_for_where_the_block_is_mapped),
        cmocka_unit_test(file__pieces_in_another_order_are_read_in_full),
        cmocka_unit_test(file__that_is_not_the_mapped_one_tells_nothing),
        cmocka_unit_test(file__holes_of_other_file_systems_are_not_believed),
        cmocka_unit_test(pagemap__entries_that_slide_hide_no_page),
        cmocka_unit_test(pagemap__scan_and_entries_find_the_same),
        cmocka_unit_test(use__destination_refuses_read_only_memory),
        cmocka_unit_test(use__block_that_is_not_wholly_mapped_is_refused),
        cmocka_unit_test(no_proc__everything_counts_as_touched),
        cmocka_unit_test(mappings__are_parsed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
