/* SPDX-License-Identifier: BSD-2-Clause */
/* test-ram-blocks.c -- the set of RAM blocks: what it takes, what it refuses, what it finds */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <vmferry/ram.h>

static uint8_t memory[1 << 16];

static void blocks__are_found_by_name_and_number(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    const VmfRamBlock *ram, *rom, *file;
    char name[] = "pc.ram";

    (void)state;
    ram = vmf_ram_blocks_add(blocks, name, memory, 10000, 4096, NULL);
    rom = vmf_ram_blocks_add(blocks, "rom", memory + 10000, 1, 512, NULL);
    file = vmf_ram_blocks_add_shared(blocks, "file", memory + 20000, 4096, 4096, 7, 8192, NULL);
    memset(name, 'x', sizeof(name) - 1); /* the set has a copy */
    assert_true(ram && rom && file);
    assert_int_equal(vmf_ram_blocks_count(blocks), 3);
    assert_int_equal(vmf_ram_blocks_total(blocks), 14097);
    assert_ptr_equal(vmf_ram_blocks_get(blocks, 0), ram);
    assert_ptr_equal(vmf_ram_blocks_get(blocks, 2), file);
    assert_null(vmf_ram_blocks_get(blocks, 3));
    assert_ptr_equal(vmf_ram_blocks_find(blocks, "pc.ram"), ram);
    assert_ptr_equal(vmf_ram_blocks_find(blocks, "rom"), rom);
    assert_null(vmf_ram_blocks_find(blocks, "ro"));
    assert_string_equal(ram->name, "pc.ram");
    assert_ptr_equal(rom->host, memory + 10000);
    assert_int_equal(rom->index, 1);
    assert_int_equal(rom->fd, -1);
    assert_int_equal(file->fd, 7);
    assert_int_equal(file->fd_offset, 8192);
}

/* Nothing may be left of a block that was refused. */
static void refuse(VmfRamBlocks *blocks, const char *name, void *host, uint64_t length,
                   uint32_t page_size, const char *says)
{
    unsigned count = vmf_ram_blocks_count(blocks);
    uint64_t total = vmf_ram_blocks_total(blocks);
    GError *error = NULL;

    assert_null(vmf_ram_blocks_add(blocks, name, host, length, page_size, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    if (!strstr(error->message, says)) {
        fail_msg("\"%s\" does not say \"%s\"", error->message, says);
    }
    g_clear_error(&error);
    assert_int_equal(vmf_ram_blocks_count(blocks), count);
    assert_int_equal(vmf_ram_blocks_total(blocks), total);
}

static void blocks__wrong_ones_are_refused(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    char name[VMF_RAM_NAME_MAX + 2];

    (void)state;
    assert_non_null(vmf_ram_blocks_add(blocks, "ram", memory + 4096, 8192, 4096, NULL));
    memset(name, 'n', sizeof(name));
    name[VMF_RAM_NAME_MAX + 1] = '\0';
    refuse(blocks, "", memory, 1, 4096, "name");
    refuse(blocks, name, memory, 1, 4096, "256");
    refuse(blocks, "ram", memory, 1, 4096, "two RAM blocks named \"ram\"");
    refuse(blocks, "a", NULL, 1, 4096, "\"a\"");
    refuse(blocks, "a", memory, 0, 4096, "\"a\"");
    refuse(blocks, "a", memory, UINT64_MAX, 4096, "\"a\"");
    refuse(blocks, "a", memory, 1, 0, "page size 0");
    refuse(blocks, "a", memory, 1, 256, "page size 256");
    refuse(blocks, "a", memory, 1, 4097, "page size 4097");
    refuse(blocks, "a", memory, 4097, 4096, "overlaps RAM block \"ram\"");
    refuse(blocks, "a", memory + 8192, 1, 4096, "overlaps RAM block \"ram\"");
    refuse(blocks, "a", memory + 12287, 100, 4096, "overlaps RAM block \"ram\"");
    refuse(blocks, "a", memory, sizeof(memory), 4096, "overlaps RAM block \"ram\"");
    /* Neighbours are allowed, and so is the longest name. */
    name[VMF_RAM_NAME_MAX] = '\0';
    assert_non_null(vmf_ram_blocks_add(blocks, name, memory, 4096, 512, NULL));
    assert_non_null(vmf_ram_blocks_add(blocks, "after", memory + 12288, 1, 1u << 30, NULL));
}

static void blocks__no_more_than_the_most(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();

    (void)state;
    for (unsigned i = 0; i < VMF_RAM_BLOCKS_MAX; i++) {
        g_autofree char *name = g_strdup_printf("block %u", i);

        assert_non_null(vmf_ram_blocks_add(blocks, name, memory + i, 1, 4096, NULL));
    }
    refuse(blocks, "one more", memory + VMF_RAM_BLOCKS_MAX, 1, 4096, "16383");
}

/* The number of a block means nothing in another set. */
static void blocks__of_another_set_change_nothing(void **state)
{
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(VmfRamBlocks) other = vmf_ram_blocks_new();
    const VmfRamBlock *first, *foreign;

    (void)state;
    first = vmf_ram_blocks_add(blocks, "a", memory, 4096, 4096, NULL);
    assert_non_null(vmf_ram_blocks_add(other, "a", memory, 4096, 4096, NULL));
    foreign = vmf_ram_blocks_add(other, "b", memory + 4096, 4096, 4096, NULL);
    vmf_ram_blocks_set_resizable(blocks, vmf_ram_blocks_get(other, 0));
    assert_false(first->resizable);
    vmf_ram_blocks_set_resizable(blocks, foreign); /* there is no second block */
    assert_false(foreign->resizable);
    vmf_ram_blocks_set_resizable(blocks, first);
    assert_true(first->resizable);
}

/* As many as possible, in a random order. */
static void blocks__overlaps_are_found_among_many(void **state)
{
    enum { COUNT = VMF_RAM_BLOCKS_MAX };
    static uint8_t many[COUNT * 16];
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    GError *error = NULL;

    (void)state;
    for (unsigned i = 0; i < COUNT - 1; i++) {
        const unsigned place = (unsigned)((uint64_t)i * 7919 % COUNT);
        g_autofree char *name = g_strdup_printf("block-%u", place);

        assert_non_null(vmf_ram_blocks_add(blocks, name, many + place * 16, 16, 512, &error));
    }
    for (unsigned i = 0; i < COUNT - 1; i++) {
        const unsigned place = (unsigned)((uint64_t)i * 7919 % COUNT);
        g_autofree char *says = g_strdup_printf("overlaps RAM block \"block-%u\"", place);

        refuse(blocks, "x", many + place * 16 + i % 16, 1, 512, says);
    }
    assert_null(vmf_ram_blocks_find(blocks, "x"));
    assert_non_null(vmf_ram_blocks_find(blocks, "block-5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks__are_found_by_name_and_number),
        cmocka_unit_test(blocks__wrong_ones_are_refused),
        cmocka_unit_test(blocks__no_more_than_the_most),
        cmocka_unit_test(blocks__of_another_set_change_nothing),
        cmocka_unit_test(blocks__overlaps_are_found_among_many),
    };

    return cmocka_run_group_tests_name("ram-blocks", tests, NULL, NULL);
}
