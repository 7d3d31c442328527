/* SPDX-License-Identifier: BSD-2-Clause */
/* test-populate.c -- which memory is made resident ahead, how far, and what it keeps */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <vmferry/ram.h>

#include "ram/populate.h"
#include "ram/ram-blocks.h"
#include "support/resident.h"

#define PAGE 4096u
#define MIB (1024u * 1024)
#define PATIENCE (20 * G_USEC_PER_SEC)

/* Memory, its block, and a host with as much headroom as the test says. */
typedef struct Ram {
    uint8_t *memory;
    uint64_t size;
    VmfRamBlocks *blocks;
    char *root, *proc, *meminfo;
} Ram;

static void set_headroom(Ram *ram, uint64_t bytes)
{
    g_autofree char *text = g_strdup_printf(
        "MemTotal: 8192 kB\nMemAvailable: %" G_GUINT64_FORMAT " kB\n", 1024 + bytes / 1024);

    assert_true(g_file_set_contents(ram->meminfo, text, -1, NULL));
}

static void add_block(Ram *ram, const char *name, uint64_t offset, uint64_t length)
{
    assert_non_null(vmf_ram_blocks_add(ram->blocks, name, ram->memory + offset, length, 512, NULL));
}

static void ram_init(Ram *ram, uint64_t size, int flags)
{
    *ram = (Ram){.size = size, .blocks = vmf_ram_blocks_new()};
    ram->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    assert_true(ram->memory != MAP_FAILED);
    madvise(ram->memory, size, MADV_NOHUGEPAGE); /* pages are counted */
    vmf_ram_blocks_set_discardable(ram->blocks);
    ram->root = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    assert_non_null(ram->root);
    ram->proc = g_build_filename(ram->root, "proc", NULL);
    ram->meminfo = g_build_filename(ram->proc, "meminfo", NULL);
    assert_int_equal(g_mkdir(ram->proc, 0700), 0);
    set_headroom(ram, 1ull << 40);
}

static void ram_clear(Ram *ram)
{
    vmf_ram_blocks_unref(ram->blocks);
    munmap(ram->memory, ram->size);
    g_remove(ram->meminfo);
    g_remove(ram->proc);
    g_remove(ram->root);
    g_free(ram->meminfo);
    g_free(ram->proc);
    g_free(ram->root);
}

/* Bytes. */
static uint64_t resident(const Ram *ram)
{
    return resident_pages(ram->memory, ram->size) * PAGE;
}

/* Runs it, with pauses, until it has made so many bytes. */
static void run_until(Populate *populate, uint64_t bytes)
{
    const gint64 deadline = g_get_monotonic_time() + PATIENCE;

    do {
        populate_run(populate);
        g_usleep(500);
        populate_pause(populate);
        assert_true(g_get_monotonic_time() < deadline);
    } while (populate_bytes(populate) < bytes);
}

/* Runs it long enough for it to make memory that it must not make. */
static void run_in_vain(Populate *populate)
{
    populate_run(populate);
    g_usleep(50000);
    populate_pause(populate);
}

static void populate__does_nothing_without_permission(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    static uint8_t memory[PAGE];

    (void)state;
    assert_non_null(vmf_ram_blocks_add(blocks, "ram", memory, PAGE, PAGE, NULL));
    assert_null(populate_new(blocks, ""));
}

/* --- RAM that is named late --- */

/* 16 MiB that forks do not inherit, and after them 16 MiB as they are. */
static void late_init(Ram *ram, int flags)
{
    ram_init(ram, 32 * MIB, MAP_PRIVATE | flags);
    assert_int_equal(madvise(ram->memory, 16 * MIB, MADV_DONTFORK), 0);
    vmf_ram_blocks_unref(ram->blocks);
    ram->blocks = vmf_ram_blocks_new();
    vmf_ram_blocks_set_late(ram->blocks);
}

static void populate__makes_memory_that_is_expected(void **state)
{
    Populated *populated;
    Populate *populate;
    Ram ram;

    (void)state;
    late_init(&ram, 0);
    memset(ram.memory + 4 * MIB, 1, 2 * MIB); /* as if it had been allocated beforehand */
    assert_int_equal(vmf_ram_blocks_expect_unforked(ram.blocks), 16 * MIB);
    assert_int_equal(vmf_ram_blocks_count(ram.blocks), 0);
    populate = populate_new(ram.blocks, ram.root);
    assert_non_null(populate);
    run_until(populate, 14 * MIB);
    assert_int_equal(resident(&ram), 16 * MIB);
    populated = populate_result(populate);
    populate_free(populate);
    add_block(&ram, "in it", MIB, MIB);
    add_block(&ram, "half in it", 15 * MIB, 2 * MIB);
    add_block(&ram, "elsewhere", 17 * MIB, MIB);
    assert_non_null(vmf_ram_blocks_add_unplaced(ram.blocks, "nowhere", MIB, 512, NULL));
    add_block(&ram, "was there", 4 * MIB, 2 * MIB);
    add_block(&ram, "behind it", 6 * MIB, MIB);
    assert_int_equal(populated_bytes(populated), 14 * MIB);
    assert_false(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 4)));
    assert_true(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 5)));
    assert_true(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 0)));
    assert_true(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 1)));
    assert_false(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 2)));
    assert_false(populated_has(populated, vmf_ram_blocks_get(ram.blocks, 3)));
    populated_free(populated);
    ram_clear(&ram);
}

static void expects_nothing(const Ram *ram)
{
    assert_int_equal(vmf_ram_blocks_expect_unforked(ram->blocks), 0);
    assert_null(populate_new(ram->blocks, ram->root));
}

static void populate__leaves_what_is_not_reserved(void **state)
{
    Ram ram;

    (void)state;
    late_init(&ram, MAP_NORESERVE);
    expects_nothing(&ram);
    ram_clear(&ram);
}

/* Devices that are assigned to a VM have its memory locked. */
static void populate__leaves_all_if_memory_is_locked(void **state)
{
    Ram ram;

    (void)state;
    late_init(&ram, 0);
    assert_true(ram_expected_is_free());
    /* Not mlock(), which sanitizers replace by nothing. */
    assert_int_equal(syscall(SYS_mlock, ram.memory + 17 * MIB, (size_t)PAGE), 0);
    assert_false(ram_expected_is_free());
    expects_nothing(&ram);
    ram_clear(&ram);
}

static void populate__expects_only_for_late_sets(void **state)
{
    Ram ram;

    (void)state;
    late_init(&ram, 0);
    vmf_ram_blocks_unref(ram.blocks);
    ram.blocks = vmf_ram_blocks_new();
    expects_nothing(&ram);
    ram_clear(&ram);
}

/* --- what is made, and how far --- */

static void populate__makes_all_and_keeps_what_is_there(void **state)
{
    Populate *populate;
    Ram ram;

    (void)state;
    ram_init(&ram, 64 * MIB, MAP_PRIVATE);
    add_block(&ram, "rom", 0, MIB);
    add_block(&ram, "ram", MIB, 63 * MIB);
    memset(ram.memory + MIB / 2, 0xaa, MIB);
    populate = populate_new(ram.blocks, ram.root);
    assert_non_null(populate);
    assert_int_equal(resident(&ram), MIB);
    run_until(populate, 63 * MIB);
    populate_run(populate); /* there is no more */
    populate_pause(populate);
    populate_pause(populate);
    assert_int_equal(resident(&ram), 64 * MIB);
    assert_int_equal(populate_bytes(populate), 63 * MIB);
    assert_int_equal(populate_block_bytes(populate, 0), MIB / 2);
    assert_int_equal(populate_block_bytes(populate, 1), 63 * MIB - MIB / 2);
    assert_ptr_equal(populate_ram(populate), ram.blocks);
    for (uint64_t at = 0; at < ram.size; at++) {
        assert_true(ram.memory[at] == (at >= MIB / 2 && at < MIB / 2 + MIB ? 0xaa : 0));
    }
    populate_free(populate);
    ram_clear(&ram);
}

/* A block with nothing to give back is not made resident. The next block has its turn. */
static void populate__leaves_what_was_touched_alone(void **state)
{
    Populate *populate;
    Ram ram;

    (void)state;
    ram_init(&ram, 16 * MIB, MAP_PRIVATE);
    add_block(&ram, "touched", 0, 8 * MIB);
    add_block(&ram, "fresh", 8 * MIB, 8 * MIB);
    memset(ram.memory, 1, 8 * MIB);
    populate = populate_new(ram.blocks, ram.root);
    run_until(populate, 8 * MIB);
    assert_int_equal(populate_block_bytes(populate, 0), 0);
    assert_int_equal(populate_block_bytes(populate, 1), 8 * MIB);
    populate_free(populate);
    ram_clear(&ram);
}

/* Pages that lie only partly in a block are not its own. */
static void populate__takes_whole_pages_alone(void **state)
{
    Populate *populate;
    Ram ram;

    (void)state;
    ram_init(&ram, 16 * MIB, MAP_PRIVATE);
    add_block(&ram, "tiny", 100, 200);
    add_block(&ram, "odd", 3 * MIB + 100, 6 * MIB);
    populate = populate_new(ram.blocks, ram.root);
    run_until(populate, 6 * MIB - PAGE);
    run_in_vain(populate);
    assert_int_equal(resident(&ram), 6 * MIB - PAGE);
    assert_int_equal(populate_block_bytes(populate, 0), 0);
    populate_free(populate);
    ram_clear(&ram);
}

static void populate__takes_private_memory_alone(void **state)
{
    Populate *populate;
    Ram ram;

    (void)state;
    ram_init(&ram, 8 * MIB, MAP_SHARED);
    add_block(&ram, "ram", 0, 8 * MIB);
    populate = populate_new(ram.blocks, ram.root);
    run_in_vain(populate);
    assert_int_equal(populate_bytes(populate), 0);
    assert_int_equal(resident(&ram), 0);
    populate_free(populate);
    ram_clear(&ram);
}

/* Steps end at multiples of 4 MiB. */
static void populate__makes_no_step_beyond_the_headroom(void **state)
{
    Populate *populate;
    uint64_t lead;
    Ram ram;

    (void)state;
    ram_init(&ram, 36 * MIB, MAP_PRIVATE);
    lead = -(uintptr_t)ram.memory % (4 * MIB);
    add_block(&ram, "ram", lead, 32 * MIB);
    set_headroom(&ram, 4 * MIB - PAGE);
    populate = populate_new(ram.blocks, ram.root);
    run_in_vain(populate);
    assert_int_equal(populate_bytes(populate), 0);
    set_headroom(&ram, 64 * MIB);
    run_in_vain(populate); /* it has given up */
    assert_int_equal(populate_bytes(populate), 0);
    populate_free(populate);
    set_headroom(&ram, 4 * MIB);
    populate = populate_new(ram.blocks, ram.root);
    run_until(populate, 32 * MIB);
    populate_free(populate);
    ram_clear(&ram);
}

static void populate__looks_at_the_headroom_again(void **state)
{
    Populate *populate;
    uint64_t before, after;
    Ram ram;

    (void)state;
    ram_init(&ram, 256 * MIB, MAP_PRIVATE);
    add_block(&ram, "ram", 0, 256 * MIB);
    set_headroom(&ram, 4 * MIB);
    populate = populate_new(ram.blocks, ram.root);
    populate_run(populate);
    g_usleep(1000);
    populate_pause(populate);
    before = populate_bytes(populate);
    set_headroom(&ram, 0);
    run_in_vain(populate);
    after = populate_bytes(populate);
    assert_in_range(after - before, 0, 4 * MIB); /* what was allowed before */
    assert_int_equal(resident(&ram), after);
    populate_free(populate);
    ram_clear(&ram);
}

static void populate__stops_when_it_is_freed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        Populate *populate;
        uint64_t before;
        Ram ram;

        ram_init(&ram, 256 * MIB, MAP_PRIVATE);
        add_block(&ram, "ram", 0, 256 * MIB);
        populate = populate_new(ram.blocks, ram.root);
        populate_run(populate);
        g_usleep(i * 100);
        populate_free(populate);
        before = resident(&ram);
        g_usleep(2000);
        assert_int_equal(resident(&ram), before);
        ram_clear(&ram);
    }
    populate_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(populate__does_nothing_without_permission),
        cmocka_unit_test(populate__makes_memory_that_is_expected),
        cmocka_unit_test(populate__leaves_what_is_not_reserved),
        cmocka_unit_test(populate__leaves_all_if_memory_is_locked),
        cmocka_unit_test(populate__expects_only_for_late_sets),
        cmocka_unit_test(populate__makes_all_and_keeps_what_is_there),
        cmocka_unit_test(populate__leaves_what_was_touched_alone),
        cmocka_unit_test(populate__takes_whole_pages_alone),
        cmocka_unit_test(populate__takes_private_memory_alone),
        cmocka_unit_test(populate__makes_no_step_beyond_the_headroom),
        cmocka_unit_test(populate__looks_at_the_headroom_again),
        cmocka_unit_test(populate__stops_when_it_is_freed),
    };

    return cmocka_run_group_tests_name("populate", tests, NULL, NULL);
}
