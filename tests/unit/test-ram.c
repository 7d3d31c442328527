/* SPDX-License-Identifier: BSD-2-Clause */
/* test-ram.c -- RAM blocks, zero detection, and memory that was never touched */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "ram/ram-scan.h"
#include "support/resident.h"

#define PAGE 4096u
#define PAGES 64u

static uint8_t *map(size_t size)
{
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(memory != MAP_FAILED);
    return memory;
}

static uint64_t resident(const uint8_t *memory)
{
    return resident_pages(memory, PAGES * PAGE);
}

static void blocks__that_are_wrong_are_refused(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    static uint8_t memory[3 * PAGE];
    char long_name[300];

    (void)state;
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    assert_non_null(vmf_ram_blocks_add(blocks, "a", memory, PAGE, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "a", memory + PAGE, PAGE, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "", memory + PAGE, PAGE, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, long_name, memory + PAGE, PAGE, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "b", memory + PAGE, 0, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "b", NULL, PAGE, PAGE, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "b", memory + PAGE, PAGE, 1000, NULL));
    assert_null(vmf_ram_blocks_add(blocks, "b", memory + PAGE - 1, PAGE, PAGE, NULL));
    assert_non_null(vmf_ram_blocks_add(blocks, "b", memory + PAGE, PAGE + 1, PAGE, NULL));
    assert_int_equal(vmf_ram_blocks_count(blocks), 2);
    assert_int_equal(vmf_ram_blocks_total(blocks), 2 * PAGE + 1);
    assert_ptr_equal(vmf_ram_blocks_find(blocks, "b"), vmf_ram_blocks_get(blocks, 1));
    assert_null(vmf_ram_blocks_find(blocks, "c"));
}

static void zero__sees_every_byte_at_every_alignment(void **state)
{
    static uint8_t memory[2048];

    (void)state;
    for (size_t start = 0; start < 40; start += 3) {
        for (size_t size = 1; size < 1500; size = size * 5 / 4 + 1) {
            assert_true(vmf_is_zero(memory + start, size));
            for (size_t at = 0; at < size; at += 1 + size / 37) {
                memory[start + at] = 1;
                assert_false(vmf_is_zero(memory + start, size));
                memory[start + at] = 0;
            }
            memory[start + size] = 1; /* a byte right after the range does not count */
            assert_true(vmf_is_zero(memory + start, size));
            memory[start + size] = 0;
        }
    }
}

typedef struct Scan {
    VmfRamBlocks *blocks;
    RamScan *scan;
    const VmfRamBlock *block;
    uint8_t *memory;
} Scan;

static void scan_init(Scan *s, int fd)
{
    s->memory = fd < 0 ? map(PAGES * PAGE)
                       : mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    s->blocks = vmf_ram_blocks_new();
    s->block =
        vmf_ram_blocks_add_shared(s->blocks, "ram", s->memory, PAGES * PAGE, PAGE, fd, 0, NULL);
    s->scan = ram_scan_new(s->blocks, PRESENCE_WRITE, NULL);
    assert_non_null(s->scan);
}

static void scan_clear(Scan *s)
{
    ram_scan_free(s->scan);
    g_clear_pointer(&s->blocks, vmf_ram_blocks_unref);
    munmap(s->memory, PAGES * PAGE);
}

/* The runs of a range as text: "z4 d1 ..." in pages, or in bytes if they are not pages. */
static char *runs(Scan *s, uint64_t from, uint64_t end)
{
    GString *text = g_string_new(NULL);
    RamRun run;
    uint64_t at = from;

    while (ram_scan_next(s->scan, s->block, &at, end, &run)) {
        g_string_append_printf(text, "%s%c%" G_GUINT64_FORMAT, text->len ? " " : "",
                               run.zero ? 'z' : 'd',
                               run.length % PAGE ? run.length : run.length / PAGE);
    }
    assert_int_equal(at, end);
    return g_string_free(text, FALSE);
}

#define assert_runs(s, from, end, expected)                                                        \
    do {                                                                                           \
        g_autofree char *text_ = runs(s, from, end);                                               \
        assert_string_equal(text_, expected);                                                      \
    } while (0)

static void scan__finds_zero_and_untouched_without_touching(void **state)
{
    Scan s;

    (void)state;
    scan_init(&s, -1);
    s.memory[10 * PAGE + 77] = 1;
    s.memory[11 * PAGE] = 1;
    s.memory[20 * PAGE] = 0; /* touched, and zero */
    assert_int_equal(resident(s.memory), 3);
    assert_runs(&s, 0, PAGES * PAGE, "z10 d2 z52");
    assert_runs(&s, 10 * PAGE, 11 * PAGE, "d1");
    assert_runs(&s, 11 * PAGE + 100, 12 * PAGE, "z3996");
    assert_int_equal(resident(s.memory), 3);
    scan_clear(&s);
}

static void scan__sees_what_is_touched_later(void **state)
{
    Scan s;

    (void)state;
    scan_init(&s, -1);
    assert_runs(&s, 0, PAGES * PAGE, "z64");
    s.memory[5 * PAGE] = 1;
    assert_runs(&s, 0, PAGES * PAGE, "z5 d1 z58");
    s.memory[5 * PAGE] = 0;
    s.memory[63 * PAGE] = 9;
    assert_runs(&s, 0, PAGES * PAGE, "z63 d1");
    scan_clear(&s);
}

static void scan__finds_holes_of_shared_memory(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t byte = 3;
    Scan s;

    (void)state;
    assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
    scan_init(&s, fd);
    /* Written to the file, as another process would do it. */
    assert_int_equal(pwrite(fd, &byte, 1, 30 * PAGE), 1);
    assert_runs(&s, 0, PAGES * PAGE, "z30 d1 z33");
    assert_int_equal(resident(s.memory), 1);
    ram_scan_zero(s.scan, s.block, 0, PAGES * PAGE);
    assert_int_equal(resident(s.memory), 1);
    assert_int_equal(s.memory[30 * PAGE], 0);
    scan_clear(&s);
    close(fd);
}

static void scan__reads_shared_memory_of_an_unknown_file(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t byte = 3;
    Scan s;
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();

    (void)state;
    assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
    scan_init(&s, fd);
    ram_scan_free(s.scan);
    s.block = vmf_ram_blocks_add(blocks, "ram", s.memory, PAGES * PAGE, PAGE, NULL);
    s.scan = ram_scan_new(blocks, PRESENCE_WRITE, NULL);
    assert_int_equal(pwrite(fd, &byte, 1, 30 * PAGE), 1);
    /* The page table does not show that byte, which must be found all the same. */
    assert_runs(&s, 0, PAGES * PAGE, "z30 d1 z33");
    scan_clear(&s);
    close(fd);
}

static void zeroing__makes_nothing_resident_and_misses_nothing(void **state)
{
    Scan s;

    (void)state;
    scan_init(&s, -1);
    memset(s.memory + 8 * PAGE, 0xff, 2 * PAGE);
    ram_scan_zero(s.scan, s.block, 8 * PAGE + 100, 50 * PAGE);
    assert_int_equal(resident(s.memory), 2);
    assert_int_equal(s.memory[8 * PAGE + 99], 0xff);
    assert_true(vmf_is_zero(s.memory + 8 * PAGE + 100, 2 * PAGE - 100));
    scan_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks__that_are_wrong_are_refused),
        cmocka_unit_test(zero__sees_every_byte_at_every_alignment),
        cmocka_unit_test(scan__finds_zero_and_untouched_without_touching),
        cmocka_unit_test(scan__sees_what_is_touched_later),
        cmocka_unit_test(scan__finds_holes_of_shared_memory),
        cmocka_unit_test(scan__reads_shared_memory_of_an_unknown_file),
        cmocka_unit_test(zeroing__makes_nothing_resident_and_misses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
