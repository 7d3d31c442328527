/* SPDX-License-Identifier: BSD-2-Clause */
/* test-ram-scan.c -- what a scan finds in private and shared memory, and what it leaves alone */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include <vmferry/ram.h>

#include "ram/ram-scan.h"
#include "support/resident.h"

#define PAGE 4096u
#define MIB (1024u * 1024)

/* Memory of one kind, a set with one block of it, and a scan over the set. */
typedef struct Ram {
    uint8_t *memory;
    uint64_t size;
    int fd;
    VmfRamBlocks *blocks;
    const VmfRamBlock *block;
    RamScan *scan;
} Ram;

static void ram_init_block(Ram *ram, uint64_t lead, uint64_t length, uint32_t page_size)
{
    ram->blocks = vmf_ram_blocks_new();
    ram->block =
        ram->fd < 0
            ? vmf_ram_blocks_add(ram->blocks, "ram", ram->memory + lead, length, page_size, NULL)
            : vmf_ram_blocks_add_shared(ram->blocks, "ram", ram->memory + lead, length, page_size,
                                        ram->fd, MIB + lead, NULL);
    assert_non_null(ram->block);
    ram->scan = ram_scan_new(ram->blocks, PRESENCE_WRITE, NULL);
    assert_non_null(ram->scan);
}

static void ram_map_private(Ram *ram, uint64_t size)
{
    *ram = (Ram){.size = size, .fd = -1};
    ram->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(ram->memory != MAP_FAILED);
    /* A huge page would make untouched neighbours resident. */
    madvise(ram->memory, size, MADV_NOHUGEPAGE);
}

/* Maps a file, in which the block begins at 1 MiB. */
static void ram_map_file(Ram *ram, uint64_t size, int flags)
{
    *ram = (Ram){.size = size, .fd = memfd_create("ram", MFD_CLOEXEC)};
    assert_true(ram->fd >= 0);
    assert_int_equal(ftruncate(ram->fd, (off_t)(size + MIB)), 0);
    ram->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, ram->fd, MIB);
    assert_true(ram->memory != MAP_FAILED);
    madvise(ram->memory, size, MADV_NOHUGEPAGE);
}

static void ram_clear(Ram *ram)
{
    ram_scan_free(ram->scan);
    vmf_ram_blocks_unref(ram->blocks);
    munmap(ram->memory, ram->size);
    if (ram->fd >= 0) {
        close(ram->fd);
    }
}

static uint64_t resident(const Ram *ram)
{
    return resident_pages(ram->memory, ram->size);
}

/*
 * The runs of the block must cover [from, to) without a gap, an overlap, or two neighbours of one
 * kind. `want' says which pages are zero: 'z' or 'd' for each page.
 */
static void expect_range(Ram *ram, uint64_t from, uint64_t to, const char *want)
{
    uint64_t offset = from, at = from;
    int last = -1;
    RamRun run;

    while (ram_scan_next(ram->scan, ram->block, &offset, to, &run)) {
        assert_int_equal(run.offset, at);
        assert_true(run.length > 0);
        assert_int_equal(offset, run.offset + run.length);
        assert_int_not_equal(last, run.zero);
        last = run.zero;
        for (; at < offset; at++) {
            if (want[at / PAGE] != (run.zero ? 'z' : 'd')) {
                fail_msg("byte 0x%zx counts as %s", (size_t)at, run.zero ? "zero" : "data");
            }
        }
    }
    assert_int_equal(at, to);
}

static void expect(Ram *ram, const char *want)
{
    expect_range(ram, 0, ram->block->length, want);
}

/* --- what a scan finds --- */

static void scan_finds_zero_data_and_untouched(Ram *ram)
{
    uint8_t *m = ram->memory;

    ram_init_block(ram, 0, 8 * PAGE, PAGE);
    expect(ram, "zzzzzzzz");
    m[1 * PAGE + 17] = 1;
    m[2 * PAGE + 4095] = 1;
    m[4 * PAGE] = 0; /* touched, still zero */
    m[5 * PAGE] = 1;
    expect(ram, "zddzzdzz");
    /* What was touched between two scans is seen, next to known pages and elsewhere. */
    m[3 * PAGE + 100] = 1;
    m[7 * PAGE + 4095] = 1;
    m[5 * PAGE] = 0;
    expect(ram, "zdddzzzd");
    expect_range(ram, 2 * PAGE, 4 * PAGE, "zdddzzzd");
    expect_range(ram, 7 * PAGE, 8 * PAGE, "zdddzzzd");
    expect_range(ram, 3 * PAGE, 3 * PAGE, "zdddzzzd");
}

static void scan__finds_untouched_pages_of_private_memory(void **state)
{
    Ram ram;

    (void)state;
    ram_map_private(&ram, 8 * PAGE);
    scan_finds_zero_data_and_untouched(&ram);
    assert_int_equal(resident(&ram), 6); /* the pages that the test itself has touched */
    ram_clear(&ram);
}

static void scan__finds_holes_of_shared_memory_with_its_file(void **state)
{
    Ram ram;

    (void)state;
    ram_map_file(&ram, 8 * PAGE, MAP_SHARED);
    scan_finds_zero_data_and_untouched(&ram);
    assert_int_equal(resident(&ram), 6);
    ram_clear(&ram);
}

/* Another process has written, which this one's page table does not show. */
static void scan__shared_sees_what_others_wrote(void **state)
{
    Ram ram;

    (void)state;
    ram_map_file(&ram, 4 * PAGE, MAP_SHARED);
    ram_init_block(&ram, 0, 4 * PAGE, PAGE);
    assert_int_equal(pwrite(ram.fd, "x", 1, MIB + 2 * PAGE + 5), 1);
    expect(&ram, "zzdz");
    assert_int_equal(pwrite(ram.fd, "x", 1, MIB), 1);
    expect(&ram, "dzdz");
    ram_clear(&ram);
}

/* Without the file, or in a private mapping, nothing is known, and all is read. */
static void scan__reads_all_where_nothing_tells(void **state)
{
    Ram ram;

    (void)state;
    ram_map_file(&ram, 4 * PAGE, MAP_SHARED);
    assert_int_equal(pwrite(ram.fd, "x", 1, MIB + 2 * PAGE), 1);
    close(ram.fd);
    ram.fd = -1;
    ram_init_block(&ram, 0, 4 * PAGE, PAGE);
    expect(&ram, "zzdz");
    ram_clear(&ram);

    ram_map_file(&ram, 4 * PAGE, MAP_PRIVATE);
    ram_init_block(&ram, 0, 4 * PAGE, PAGE);
    ram.memory[3 * PAGE] = 1; /* a copy of this process's own: the file still has a hole there */
    expect(&ram, "zzzd");
    ram_clear(&ram);
}

static void scan__block_that_begins_and_ends_within_pages(void **state)
{
    Ram ram;
    uint64_t offset = 0;
    RamRun run;

    (void)state;
    ram_map_private(&ram, 4 * PAGE);
    ram_init_block(&ram, 100, 3 * PAGE + 777, 512);
    ram.memory[99] = 1; /* the byte before the block, in a page that it shares */
    assert_true(ram_scan_next(ram.scan, ram.block, &offset, ram.block->length, &run));
    assert_true(run.zero && run.length == ram.block->length);
    ram.memory[100 + 3 * PAGE + 776] = 1; /* its last byte */
    offset = 0;
    assert_true(ram_scan_next(ram.scan, ram.block, &offset, ram.block->length, &run));
    assert_true(run.zero && run.length == 3 * PAGE + 512);
    assert_true(ram_scan_next(ram.scan, ram.block, &offset, ram.block->length, &run));
    assert_true(!run.zero && run.length == 777 - 512);
    assert_false(ram_scan_next(ram.scan, ram.block, &offset, ram.block->length, &run));
    ram_clear(&ram);
}

/* The block's pages are larger than the system's: untouched parts of one are still not read. */
static void scan__of_large_pages_reads_no_untouched_memory(void **state)
{
    Ram ram;

    (void)state;
    ram_map_private(&ram, 4 * MIB);
    ram_init_block(&ram, 0, 4 * MIB, 2 * MIB);
    ram.memory[3 * MIB] = 1;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t offset = 0;
        bool found = false;
        RamRun run;

        while (ram_scan_next(ram.scan, ram.block, &offset, 4 * MIB, &run)) {
            found |= !run.zero && run.offset <= 3 * MIB && run.offset + run.length > 3 * MIB;
        }
        assert_true(found);
    }
    assert_int_equal(resident(&ram), 1);
    ram_clear(&ram);
}

/* Compares scans with the bytes themselves, again and again, while memory fills up. */
static void scan__of_random_patterns_agrees_with_the_bytes(void **state)
{
    enum { PAGES = 3000 };
    g_autofree char *want = g_malloc(PAGES);
    g_autoptr(GRand) random = g_rand_new_with_seed(11);

    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        Ram ram;

        if (kind) {
            ram_map_file(&ram, PAGES * PAGE, MAP_SHARED);
        } else {
            ram_map_private(&ram, PAGES * PAGE);
        }
        ram_init_block(&ram, 0, PAGES * PAGE, PAGE);
        memset(want, 'z', PAGES);
        for (unsigned turn = 0; turn < 30; turn++) {
            unsigned from = (unsigned)g_rand_int_range(random, 0, PAGES);

            for (unsigned i = 0; i < 60; i++) {
                unsigned page = (unsigned)g_rand_int_range(random, 0, PAGES);
                uint8_t value = (uint8_t)g_rand_int_range(random, 0, 3);

                memset(ram.memory + page * PAGE, value, PAGE);
                want[page] = value ? 'd' : 'z';
            }
            expect(&ram, want);
            expect_range(&ram, from * PAGE, MIN(from + 300, PAGES) * PAGE, want);
        }
        ram_clear(&ram);
    }
}

/* --- what becomes resident --- */

static void scan__makes_nothing_resident(void **state)
{
    const uint64_t size = 1024ull * MIB;

    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        uint64_t offset = 0;
        RamRun run;
        Ram ram;

        if (kind) {
            ram_map_file(&ram, size, MAP_SHARED);
        } else {
            ram_map_private(&ram, size);
        }
        ram_init_block(&ram, 0, size, PAGE);
        assert_true(ram_scan_next(ram.scan, ram.block, &offset, size, &run));
        assert_true(run.zero && run.length == size);
        ram_scan_zero(ram.scan, ram.block, 0, size);
        assert_int_equal(resident(&ram), 0);
        assert_true(ram_scan_own_bytes(ram.scan) < size / 1000);
        ram_clear(&ram);
    }
}

/* --- zeroing --- */

static void zero_only_what_is_asked(Ram *ram)
{
    const uint64_t from = PAGE + 5, length = 4 * PAGE;

    ram_init_block(ram, 0, 16 * PAGE, PAGE);
    memset(ram->memory, 0xaa, 3 * PAGE);
    memset(ram->memory + 4 * PAGE, 0xaa, 4 * PAGE);
    ram_scan_zero(ram->scan, ram->block, from, length);
    assert_int_equal(resident(ram), 7); /* page 3 and pages from 8 on are unchanged */
    for (uint64_t at = 0; at < 16 * PAGE; at++) {
        bool kept = at < 8 * PAGE && at / PAGE != 3 && (at < from || at >= from + length);

        if (at < 3 * PAGE || (at >= 4 * PAGE && at < 8 * PAGE)) {
            assert_int_equal(ram->memory[at], kept ? 0xaa : 0);
        }
    }
    /* Again, with all pages known, and new ones written. */
    memset(ram->memory + 10 * PAGE, 0xbb, PAGE);
    ram_scan_zero(ram->scan, ram->block, 0, 16 * PAGE);
    assert_int_equal(resident(ram), 8);
    for (uint64_t at = 0; at < 16 * PAGE; at++) {
        assert_int_equal(ram->memory[at], 0);
    }
}

static void zero__of_private_memory_changes_only_the_range(void **state)
{
    Ram ram;

    (void)state;
    ram_map_private(&ram, 16 * PAGE);
    zero_only_what_is_asked(&ram);
    ram_clear(&ram);
}

static void zero__of_shared_memory_changes_only_the_range(void **state)
{
    Ram ram;

    (void)state;
    ram_map_file(&ram, 16 * PAGE, MAP_SHARED);
    zero_only_what_is_asked(&ram);
    ram_clear(&ram);
}

static void zero__of_shared_memory_without_its_file_zeroes_the_range(void **state)
{
    Ram ram;

    (void)state;
    ram_map_file(&ram, 4 * PAGE, MAP_SHARED);
    close(ram.fd);
    ram.fd = -1;
    ram_init_block(&ram, 0, 4 * PAGE, PAGE);
    memset(ram.memory, 1, 4 * PAGE);
    ram_scan_zero(ram.scan, ram.block, 10, 4 * PAGE - 20);
    for (uint64_t at = 0; at < 4 * PAGE; at++) {
        assert_int_equal(ram.memory[at], at < 10 || at >= 4 * PAGE - 10);
    }
    ram_clear(&ram);
}

/* Zero memory is not written: the page stays the shared zero page. */
static void zero__does_not_write_zero_pages(void **state)
{
    Ram ram;
    volatile uint8_t sum = 0;

    (void)state;
    ram_map_private(&ram, 4 * PAGE);
    ram_init_block(&ram, 0, 4 * PAGE, PAGE);
    for (unsigned i = 0; i < 4; i++) {
        sum = (uint8_t)(sum + ram.memory[i * PAGE]); /* mapped by reading */
    }
    assert_int_equal(mprotect(ram.memory, 4 * PAGE, PROT_READ), 0);
    ram_scan_zero(ram.scan, ram.block, 0, 4 * PAGE); /* a write would kill the process */
    assert_int_equal(sum, 0);
    ram_clear(&ram);
}

/* --- giving back --- */

static void release__leaves_the_rest_of_a_page(void **state)
{
    const uint64_t from = 10 * PAGE + 5, length = 40 * PAGE;
    Ram ram;

    (void)state;
    ram_map_private(&ram, 64 * PAGE);
    ram_init_block(&ram, 0, 64 * PAGE, PAGE);
    memset(ram.memory, 0xaa, 64 * PAGE);
    expect(&ram, "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd");
    ram_scan_release(ram.scan, ram.block, from, length);
    assert_int_equal(resident(&ram), 64 - 39);
    expect(&ram, "dddddddddddzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzdddddddddddddd");
    assert_int_equal(resident(&ram), 64 - 39); /* what was given back counts as untouched */
    for (uint64_t at = 0; at < 64 * PAGE; at++) {
        assert_int_equal(ram.memory[at], at < from || at >= from + length ? 0xaa : 0);
    }
    ram_clear(&ram);
}

/* A block that begins and ends within pages is released as a whole. */
static void release__of_a_whole_odd_block(void **state)
{
    Ram ram;

    (void)state;
    ram_map_private(&ram, 64 * PAGE);
    memset(ram.memory, 0xaa, 64 * PAGE);
    ram_init_block(&ram, 100, 60 * PAGE + 1000, 512);
    ram_scan_release(ram.scan, ram.block, 0, ram.block->length);
    assert_int_equal(resident(&ram), 64 - 59);
    for (uint64_t at = 0; at < 64 * PAGE; at++) {
        assert_int_equal(ram.memory[at], at < 100 || at >= 100 + ram.block->length ? 0xaa : 0);
    }
    ram_clear(&ram);
}

/* If nothing may be given back, or it does not pay, memory is zeroed. */
static void release__zeroes_where_it_cannot(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        const uint64_t length = kind == 0 ? 15 * PAGE : 32 * PAGE;
        Ram ram;

        if (kind == 1) {
            ram_map_file(&ram, 32 * PAGE, MAP_SHARED);
        } else {
            ram_map_private(&ram, 32 * PAGE);
        }
        ram_init_block(&ram, 0, 32 * PAGE, PAGE);
        memset(ram.memory, 0xaa, 32 * PAGE);
        /* madvise(2): not if it is locked. The address sanitizer makes mlock() do nothing. */
        if (kind == 2 && syscall(SYS_mlock, ram.memory, 32ul * PAGE) < 0) {
            fail_msg("128 KiB could not be locked: %s", strerror(errno));
        }
        ram_scan_release(ram.scan, ram.block, 0, length);
        assert_int_equal(resident(&ram), 32);
        for (uint64_t at = 0; at < 32 * PAGE; at++) {
            assert_int_equal(ram.memory[at], at < length ? 0 : 0xaa);
        }
        ram_clear(&ram);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scan__finds_untouched_pages_of_private_memory),
        cmocka_unit_test(scan__finds_holes_of_shared_memory_with_its_file),
        cmocka_unit_test(scan__shared_sees_what_others_wrote),
        cmocka_unit_test(scan__reads_all_where_nothing_tells),
        cmocka_unit_test(scan__block_that_begins_and_ends_within_pages),
        cmocka_unit_test(scan__of_large_pages_reads_no_untouched_memory),
        cmocka_unit_test(scan__of_random_patterns_agrees_with_the_bytes),
        cmocka_unit_test(scan__makes_nothing_resident),
        cmocka_unit_test(zero__of_private_memory_changes_only_the_range),
        cmocka_unit_test(zero__of_shared_memory_changes_only_the_range),
        cmocka_unit_test(zero__of_shared_memory_without_its_file_zeroes_the_range),
        cmocka_unit_test(zero__does_not_write_zero_pages),
        cmocka_unit_test(release__leaves_the_rest_of_a_page),
        cmocka_unit_test(release__of_a_whole_odd_block),
        cmocka_unit_test(release__zeroes_where_it_cannot),
    };

    return cmocka_run_group_tests_name("ram-scan", tests, NULL, NULL);
}
