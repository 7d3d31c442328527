/* SPDX-License-Identifier: BSD-2-Clause */
/* test-memory.c -- migrations of guest RAM of unusual kinds, and of very many blocks */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>

#include "support/lazy.h"
#include "support/pair.h"
#include "support/resident.h"

#define PAGE 4096ull
#define MIB (1024ull * 1024)

static uint8_t *map_private(uint64_t size, int protection)
{
    uint8_t *memory =
        mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_true(memory != MAP_FAILED);
    madvise(memory, size, MADV_NOHUGEPAGE); /* pages are counted */
    return memory;
}

/* Gives both sides one block, of other memory than the pair's own. */
static void pair_use(Pair *pair, uint8_t *source, uint8_t *destination, uint64_t size, int fd)
{
    vmf_ram_blocks_unref(pair->source_blocks);
    vmf_ram_blocks_unref(pair->destination_blocks);
    pair->source_blocks = vmf_ram_blocks_new();
    pair->destination_blocks = vmf_ram_blocks_new();
    pair->block =
        vmf_ram_blocks_add_shared(pair->source_blocks, "odd", source, size, 4096, fd, 0, NULL);
    assert_non_null(pair->block);
    assert_non_null(
        vmf_ram_blocks_add(pair->destination_blocks, "odd", destination, size, 4096, NULL));
}

/* Migrates `size' bytes at `source', of the file `fd' or none. They must arrive. */
static void migrate(uint8_t *source, uint64_t size, int fd)
{
    uint8_t *destination = map_private(size + PAGE, PROT_READ | PROT_WRITE);
    Pair pair;

    pair_init(&pair, PAGE, false, ",channels=2");
    memset(destination, 0x33, size + PAGE);
    pair_use(&pair, source, destination, size, fd);
    pair_connect(&pair);
    for (uint64_t at = 0; at < size; at += 64 * 1024) {
        assert_true(vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, at,
                                      MIN(64 * 1024, size - at)));
    }
    pair_complete_unchecked(&pair);
    assert_memory_equal(source, destination, size);
    assert_int_equal(destination[size], 0x33);
    pair_clear(&pair);
    munmap(destination, size + PAGE);
}

/* --- kinds of memory at the source --- */

static void source__lazily_filled_ram_arrives_whole(void **state)
{
    const uint64_t size = 8 * MIB;
    uint8_t *memory = map_private(size, PROT_READ | PROT_WRITE);
    Lazy lazy;

    (void)state;
    memset(memory + MIB, 1, MIB); /* these pages are there already */
    lazy_start(&lazy, memory, size, false);
    migrate(memory, size, -1);
    assert_int_equal(lazy.filled, (size - MIB) / PAGE);
    lazy_stop(&lazy);
    munmap(memory, size);
}

static void source__read_only_ram_arrives(void **state)
{
    uint8_t *memory = map_private(4 * MIB, PROT_READ | PROT_WRITE);

    (void)state;
    pair_fill(memory, 4 * MIB, 3);
    assert_int_equal(mprotect(memory, 4 * MIB, PROT_READ), 0);
    migrate(memory, 4 * MIB, -1);
    munmap(memory, 4 * MIB);
}

/* A file with random content, in memory. */
static int filled_file(uint64_t size)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t *memory;

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(memory != MAP_FAILED);
    pair_fill(memory, size, 9);
    munmap(memory, size);
    return fd;
}

static void source__mappings_of_files_arrive(void **state)
{
    static const struct {
        int protection, flags;
        bool named;
    } kinds[] = {
        {PROT_READ, MAP_SHARED, false},              /* a ROM */
        {PROT_READ, MAP_PRIVATE, false},             /* ... */
        {PROT_READ | PROT_WRITE, MAP_PRIVATE, true}, /* the file tells nothing about it */
        {PROT_READ | PROT_WRITE, MAP_SHARED, false},
        {PROT_READ | PROT_WRITE, MAP_SHARED, true},
    };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        const uint64_t size = 4 * MIB;
        int fd = filled_file(size);
        uint8_t *memory;

        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, 16 * PAGE),
                         0);
        memory = mmap(NULL, size, kinds[i].protection, kinds[i].flags, fd, 0);
        assert_true(memory != MAP_FAILED);
        if (kinds[i].protection & PROT_WRITE) {
            memory[MIB + 3 * PAGE] = 1; /* in the hole */
        }
        migrate(memory, size, kinds[i].named ? fd : -1);
        munmap(memory, size);
        close(fd);
    }
}

/* Part of anonymous memory is a mapping of a snapshot's file, and protections split it. */
static void source__pieces_of_all_kinds_arrive(void **state)
{
    const uint64_t size = 4 * MIB;
    int fd = filled_file(MIB);
    uint8_t *memory = map_private(size, PROT_READ | PROT_WRITE);

    (void)state;
    pair_fill(memory, size / 2, 3);
    assert_true(mmap(memory + MIB, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
                memory + MIB);
    memory[MIB + 5 * PAGE] ^= 1;
    for (uint64_t at = 0; at < size; at += 32 * PAGE) {
        assert_int_equal(mprotect(memory + at, PAGE, PROT_READ), 0);
    }
    migrate(memory, size, -1);
    munmap(memory, size);
    close(fd);
}

static void source__ram_that_begins_and_ends_anywhere_arrives(void **state)
{
    uint8_t *memory = map_private(4 * MIB, PROT_READ | PROT_WRITE);

    (void)state;
    pair_fill(memory, 4 * MIB, 4);
    migrate(memory + 513, 3 * MIB + 1027, -1);
    munmap(memory, 4 * MIB);
}

static void source__huge_merged_and_freed_pages_arrive(void **state)
{
    static const int advice[] = {MADV_HUGEPAGE, MADV_MERGEABLE, MADV_FREE};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(advice); i++) {
        const uint64_t size = 8 * MIB;
        uint8_t *memory = map_private(size, PROT_READ | PROT_WRITE);

        if (advice[i] == MADV_HUGEPAGE) {
            madvise(memory, size, advice[i]);
        }
        memset(memory, 7, size);
        if (advice[i] == MADV_MERGEABLE) {
            madvise(memory, size, advice[i]);
        }
        for (uint64_t at = 0; at < size; at += 64 * PAGE) {
            madvise(memory + at, PAGE, MADV_DONTNEED);
        }
        migrate(memory, size, -1);
        munmap(memory, size);
    }
}

/* --- memory that cannot be used --- */

static void expect_refusal(int source_protection, int destination_protection, const char *says)
{
    uint8_t *source = map_private(MIB, PROT_READ | PROT_WRITE);
    uint8_t *destination = map_private(MIB, PROT_READ | PROT_WRITE);
    g_autoptr(GError) source_error = NULL;
    g_autoptr(GError) destination_error = NULL;
    Pair pair;

    memset(source, 1, MIB);
    assert_int_equal(mprotect(source + 16 * PAGE, 4 * PAGE, source_protection), 0);
    assert_int_equal(mprotect(destination + 16 * PAGE, 4 * PAGE, destination_protection), 0);
    pair_init(&pair, PAGE, false, ",channels=2");
    pair_use(&pair, source, destination, MIB, -1);
    assert_false(pair_try_connect(&pair, &source_error, &destination_error));
    assert_non_null(source_error);
    assert_non_null(destination_error);
    for (unsigned i = 0; i < 2; i++) {
        const char *text = (i ? source_error : destination_error)->message;

        if (!strstr(text, "\"odd\", bytes 0x10000 to 0x14000") || !strstr(text, says)) {
            fail_msg("\"%s\" does not say \"%s\", or where", text, says);
        }
    }
    pair_clear(&pair);
    munmap(source, MIB);
    munmap(destination, MIB);
}

static void destination__read_only_ram_is_refused_by_name(void **state)
{
    (void)state;
    expect_refusal(PROT_READ, PROT_READ, "read-only");
}

static void destination__inaccessible_ram_is_refused_by_name(void **state)
{
    (void)state;
    expect_refusal(PROT_READ, PROT_NONE, "without access");
}

static void source__inaccessible_ram_is_refused_by_name(void **state)
{
    (void)state;
    expect_refusal(PROT_NONE, PROT_READ | PROT_WRITE, "without access");
}

static void source__block_of_another_set_is_refused(void **state)
{
    g_autoptr(VmfRamBlocks) other = vmf_ram_blocks_new();
    uint8_t *memory = map_private(8 * PAGE, PROT_READ | PROT_WRITE);
    g_autoptr(GError) error = NULL;
    const VmfRamBlock *block = NULL;
    VmfFile *file;
    Pair pair;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        g_autofree char *name = g_strdup_printf("foreign-%u", i);

        block = vmf_ram_blocks_add(other, name, memory + i * PAGE, PAGE, 4096, NULL);
        assert_non_null(block);
    }
    for (unsigned i = 0; i < 3; i++) {
        pair_init(&pair, PAGE, false, ",channels=2");
        pair_connect(&pair);
        file = vmf_session_get_file(pair.source);
        if (i == 2) { /* of the right set, but the session does not know it */
            block = vmf_ram_blocks_add(pair.source_blocks, "foreign-2", memory, PAGE, 4096, NULL);
        } else if (i == 1) { /* a number that exists in the session */
            block = vmf_ram_blocks_get(other, 0);
        }
        assert_false(vmf_save_ram_page(file, block, 0, PAGE));
        assert_false(vmf_file_check(file, &error));
        assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
        assert_non_null(strstr(error->message, "foreign-"));
        g_clear_error(&error);
        pair_clear(&pair);
    }
    munmap(memory, 8 * PAGE);
}

/* --- very many --- */

/*
 * As many blocks as possible, each with a mapping of its own, and as many other mappings. What
 * set-up does for each block must not grow with their number.
 */
static void setup__of_all_blocks_in_a_process_with_many_mappings(void **state)
{
    enum { BLOCKS = VMF_RAM_BLOCKS_MAX, OTHERS = 24000 };
    const uint64_t size = (BLOCKS + OTHERS) * PAGE;
    uint8_t *source = map_private(size, PROT_READ | PROT_WRITE);
    uint8_t *destination = map_private(size, PROT_READ | PROT_WRITE);
    gint64 began;
    Pair pair;

    /*
     * The print says how long it took. Work that grows with blocks times mappings takes so long
     * that the set-up ends with its time-out, on the fastest machine too.
     */
    (void)state;
    for (unsigned i = 1; i < BLOCKS + OTHERS; i += 2) {
        assert_int_equal(mprotect(source + i * PAGE, PAGE, PROT_READ), 0);
    }
    pair_init(&pair, PAGE, false, ",channels=2,timeout=60s,connect-timeout=60s");
    began = g_get_monotonic_time();
    for (unsigned i = 1; i < BLOCKS; i++) {
        g_autofree char *name = g_strdup_printf("block-%u", i);

        assert_non_null(
            vmf_ram_blocks_add(pair.source_blocks, name, source + i * PAGE, PAGE, 4096, NULL));
        assert_non_null(vmf_ram_blocks_add(pair.destination_blocks, name, destination + i * PAGE,
                                           PAGE, 4096, NULL));
    }
    pair_connect(&pair);
    print_message("%u blocks and %u mappings: set up within %.2f s, both sides together\n",
                  (unsigned)BLOCKS, (unsigned)(BLOCKS + OTHERS),
                  (double)(g_get_monotonic_time() - began) / G_USEC_PER_SEC);
    pair_clear(&pair);
    munmap(source, size);
    munmap(destination, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source__lazily_filled_ram_arrives_whole),
        cmocka_unit_test(source__read_only_ram_arrives),
        cmocka_unit_test(source__mappings_of_files_arrive),
        cmocka_unit_test(source__pieces_of_all_kinds_arrive),
        cmocka_unit_test(source__ram_that_begins_and_ends_anywhere_arrives),
        cmocka_unit_test(source__huge_merged_and_freed_pages_arrive),
        cmocka_unit_test(destination__read_only_ram_is_refused_by_name),
        cmocka_unit_test(destination__inaccessible_ram_is_refused_by_name),
        cmocka_unit_test(source__inaccessible_ram_is_refused_by_name),
        cmocka_unit_test(source__block_of_another_set_is_refused),
        cmocka_unit_test(setup__of_all_blocks_in_a_process_with_many_mappings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
