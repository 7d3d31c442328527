/* SPDX-License-Identifier: BSD-2-Clause */
/* test-late-ram.c -- sessions whose RAM is named after they are connected */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <vmferry/plugin/transport.h>

#include "support/pair.h"
#include "support/test-filter.h"

#define PAGE 4096ull
#define SIZE (256 * PAGE)

/* --- helpers --- */

static void begin(Pair *pair, bool source_late, bool destination_late, const char *options)
{
    pair_init(pair, SIZE, false, options);
    if (source_late) {
        vmf_ram_blocks_set_late(pair->source_blocks);
    }
    if (destination_late) {
        vmf_ram_blocks_set_late(pair->destination_blocks);
    }
    pair_fill(pair->source_ram, SIZE, 1);
    memset(pair->source_ram + 8 * PAGE, 0, 16 * PAGE);
    pair_connect(pair);
}

static void put_word(Pair *pair, uint32_t word)
{
    VmfFile *file = vmf_session_get_file(pair->source);

    vmf_put_be32(file, word);
    assert_true(vmf_file_flush(file, NULL));
}

static void expect_word(Pair *pair, uint32_t word)
{
    VmfFile *file = vmf_session_get_file(pair->destination);

    assert_int_equal(vmf_get_be32(file), word);
    assert_true(vmf_file_check(file, NULL));
}

static void name(VmfSession *session)
{
    g_autoptr(GError) error = NULL;

    assert_true(vmf_session_name_ram(session, &error));
    assert_null(error);
}

/* RAM, a word after it that needs it, and the end. */
static void migrate(Pair *pair)
{
    pair_save_all(pair, 4 * PAGE);
    put_word(pair, 0x76543210);
    expect_word(pair, 0x76543210);
    assert_memory_equal(pair->source_ram, pair->destination_ram, SIZE);
    pair->source_ram[5 * PAGE] ^= 1;
    pair_save_all(pair, SIZE);
    pair_complete(pair);
    pair_clear(pair);
}

/* --- what works --- */

static void late__both_sides_name_their_ram(void **state)
{
    Pair pair;

    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        begin(&pair, true, true, ",channels=2");
        put_word(&pair, 1);
        expect_word(&pair, 1);
        name(first ? pair.source : pair.destination);
        put_word(&pair, 2);
        expect_word(&pair, 2);
        name(first ? pair.destination : pair.source);
        migrate(&pair);
    }
}

static void late__source_alone_names_its_ram(void **state)
{
    Pair pair;

    (void)state;
    begin(&pair, true, false, ",channels=3");
    put_word(&pair, 1);
    expect_word(&pair, 1);
    name(pair.source);
    migrate(&pair);
}

static void *name_soon(void *opaque)
{
    Pair *pair = opaque;

    expect_word(pair, 1);
    name(pair->destination);
    return NULL;
}

static void late__saving_waits_for_the_destination(void **state)
{
    GThread *thread;
    Pair pair;

    (void)state;
    begin(&pair, false, true, ",channels=2");
    thread = pair_destination(&pair, name_soon);
    put_word(&pair, 1);
    pair_save_all(&pair, PAGE);
    g_thread_join(thread);
    migrate(&pair);
}

static void late__return_path_works_before_ram(void **state)
{
    VmfFile *there, *back;
    Pair pair;

    (void)state;
    begin(&pair, true, true, ",channels=1");
    back = vmf_file_get_return_path(vmf_session_get_file(pair.destination), NULL);
    there = vmf_file_get_return_path(vmf_session_get_file(pair.source), NULL);
    vmf_put_be32(back, 77);
    assert_true(vmf_file_flush(back, NULL));
    assert_int_equal(vmf_get_be32(there), 77);
    vmf_file_free(back);
    vmf_file_free(there);
    name(pair.source);
    name(pair.destination);
    migrate(&pair);
}

static void late__session_without_ram_completes(void **state)
{
    Pair pair;

    (void)state;
    begin(&pair, true, true, ",channels=2");
    put_word(&pair, 1);
    expect_word(&pair, 1);
    pair_complete_unchecked(&pair);
    pair_clear(&pair);
}

static void *load(void *opaque)
{
    Pair *pair = opaque;
    GError *error = NULL;

    expect_word(pair, 7);
    vmf_session_complete(pair->destination, &error);
    return error;
}

/* The first half of completing, then the second half, or none. */
static void loaded__the_source_may_still_keep_the_vm(void **state)
{
    (void)state;
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        g_autoptr(GError) there = NULL;
        GThread *thread;
        Pair pair;

        begin(&pair, true, false, ",channels=2");
        name(pair.source);
        pair_save_all(&pair, 16 * PAGE);
        put_word(&pair, 7);
        thread = pair_destination(&pair, load);
        assert_true(vmf_session_await_loaded(pair.source, NULL));
        assert_int_equal(vmf_session_get_owner(pair.source), VMF_OWNER_THIS_SIDE);
        assert_int_not_equal(vmf_session_get_owner(pair.destination), VMF_OWNER_THIS_SIDE);
        if (keeps) {
            vmf_session_cancel(pair.source);
            assert_false(vmf_session_complete(pair.source, NULL));
            assert_int_equal(vmf_session_get_owner(pair.source), VMF_OWNER_THIS_SIDE);
        } else {
            assert_true(vmf_session_complete(pair.source, NULL));
            assert_int_equal(vmf_session_get_owner(pair.source), VMF_OWNER_OTHER_SIDE);
        }
        there = g_thread_join(thread);
        assert_int_equal(there != NULL, keeps);
        assert_int_equal(vmf_session_get_owner(pair.destination),
                         keeps ? VMF_OWNER_OTHER_SIDE : VMF_OWNER_THIS_SIDE);
        pair_clear(&pair);
    }
}

static void late__named_ram_that_nobody_saves_completes(void **state)
{
    Pair pair;

    (void)state;
    begin(&pair, true, true, ",channels=2");
    name(pair.source);
    name(pair.destination);
    put_word(&pair, 1);
    expect_word(&pair, 1);
    pair_complete_unchecked(&pair);
    pair_clear(&pair);
}

/* --- memory that is not known yet --- */

static void unplaced__zero_pages_and_a_later_address(void **state)
{
    (void)state;
    for (unsigned channels = 1; channels <= 2; channels++) {
        g_autofree char *options = g_strdup_printf(",channels=%u", channels);
        uint8_t *there, *here;
        const VmfRamBlock *block;
        g_autoptr(GError) error = NULL;
        VmfFile *file;
        Pair pair;

        pair_init(&pair, SIZE, false, options);
        vmf_ram_blocks_set_late(pair.source_blocks);
        here = g_aligned_alloc0(1, 32 * PAGE, PAGE);
        there = g_aligned_alloc0(1, 32 * PAGE, PAGE);
        pair_fill(there, 32 * PAGE, 3);
        pair_fill(here, 32 * PAGE, 4);
        memset(here, 0, 8 * PAGE);
        block = vmf_ram_blocks_add_unplaced(pair.source_blocks, "late", 32 * PAGE, PAGE, NULL);
        assert_non_null(block);
        assert_non_null(
            vmf_ram_blocks_add(pair.destination_blocks, "late", there, 32 * PAGE, PAGE, NULL));
        pair_connect(&pair);
        name(pair.source);
        file = vmf_session_get_file(pair.source);
        assert_true(vmf_save_zero_pages(file, block, 0, 8 * PAGE));
        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
        put_word(&pair, 5);
        expect_word(&pair, 5);
        assert_true(vmf_is_zero(there, 8 * PAGE));
        assert_true(vmf_ram_blocks_set_host(pair.source_blocks, block, here, NULL));
        assert_true(vmf_save_ram_page(file, block, 8 * PAGE, 24 * PAGE));
        /* Zero pages, data over them, and zero pages over data. */
        memset(here + PAGE, 5, PAGE);
        memset(here + 9 * PAGE, 0, PAGE);
        assert_true(vmf_save_ram_page(file, block, PAGE, PAGE));
        assert_true(vmf_save_zero_pages(file, block, 9 * PAGE, PAGE));
        put_word(&pair, 6);
        expect_word(&pair, 6);
        assert_memory_equal(here, there, 32 * PAGE);
        assert_false(vmf_ram_blocks_set_host(pair.source_blocks, block, here, &error));
        assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
        pair_save_all(&pair, SIZE);
        pair_complete(&pair);
        pair_clear(&pair);
        g_aligned_free(here);
        g_aligned_free(there);
    }
}

static void unplaced__ram_without_an_address_is_refused(void **state)
{
    g_autoptr(VmfRamBlocks) whole = vmf_ram_blocks_new();
    g_autoptr(GError) error = NULL;
    const VmfRamBlock *block;
    VmfFile *file;
    Pair pair;

    (void)state;
    assert_null(vmf_ram_blocks_add_unplaced(whole, "x", PAGE, PAGE, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    g_clear_error(&error);
    pair_init(&pair, SIZE, false, ",channels=1");
    vmf_ram_blocks_set_late(pair.source_blocks);
    block = vmf_ram_blocks_add_unplaced(pair.source_blocks, "late", PAGE, PAGE, NULL);
    assert_false(vmf_ram_blocks_set_host(pair.source_blocks, block, pair.source_ram, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    assert_non_null(strstr(error->message, "overlaps"));
    g_clear_error(&error);
    assert_non_null(
        vmf_ram_blocks_add(pair.destination_blocks, "late", g_malloc0(PAGE), PAGE, PAGE, NULL));
    pair_connect(&pair);
    name(pair.source);
    file = vmf_session_get_file(pair.source);
    assert_false(vmf_save_ram_page(file, block, 0, PAGE));
    assert_false(vmf_file_check(file, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    g_free(vmf_ram_blocks_find(pair.destination_blocks, "late")->host);
    pair_clear(&pair);
}

/* --- what fails --- */

static void *read_to_the_end(void *opaque)
{
    Pair *pair = opaque;
    VmfFile *file = vmf_session_get_file(pair->destination);

    while (vmf_file_check(file, NULL)) {
        (void)vmf_get_byte(file);
    }
    return NULL;
}

static void expect_source_error(Pair *pair, int code, const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_false(vmf_session_check(pair->source, &error));
    if (!g_error_matches(error, VMF_ERROR, code) || !strstr(error->message, text)) {
        fail_msg("%s", error->message);
    }
}

static void fails__blocks_that_differ(void **state)
{
    GThread *thread;
    Pair pair;

    (void)state;
    pair_init(&pair, SIZE, false, ",channels=2");
    vmf_ram_blocks_set_late(pair.source_blocks);
    pair_connect(&pair);
    assert_non_null(vmf_ram_blocks_add_unplaced(pair.source_blocks, "odd", PAGE, PAGE, NULL));
    thread = pair_destination(&pair, read_to_the_end);
    name(pair.source);
    assert_false(vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, 0, PAGE));
    g_thread_join(thread);
    expect_source_error(&pair, VMF_ERROR_MISMATCH, "\"odd\"");
    pair_clear(&pair);
}

static void fails__saving_before_naming(void **state)
{
    VmfFile *file;
    g_autoptr(GError) error = NULL;
    Pair pair;

    (void)state;
    begin(&pair, true, false, ",channels=1");
    file = vmf_session_get_file(pair.source);
    assert_false(vmf_save_ram_page(file, pair.block, 0, PAGE));
    assert_false(vmf_file_check(file, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    assert_non_null(strstr(error->message, "before it was named"));
    pair_clear(&pair);
}

static void fails__naming_twice_or_in_vain(void **state)
{
    g_autoptr(GError) error = NULL;
    Pair pair;

    (void)state;
    begin(&pair, true, false, ",channels=1");
    name(pair.source);
    assert_false(vmf_session_name_ram(pair.source, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    g_clear_error(&error);
    assert_false(vmf_session_name_ram(pair.destination, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_INVALID));
    migrate(&pair);
}

static void fails__a_destination_that_never_names_its_ram(void **state)
{
    GThread *thread;
    Pair pair;

    (void)state;
    begin(&pair, true, true, ",channels=1,connect-timeout=1s");
    thread = pair_destination(&pair, read_to_the_end);
    name(pair.source);
    assert_false(vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, 0, PAGE));
    expect_source_error(&pair, VMF_ERROR_TIMEOUT, "connect-timeout");
    vmf_session_free(g_steal_pointer(&pair.source));
    g_thread_join(thread);
    pair_clear(&pair);
}

static void *cancel_soon(void *opaque)
{
    Pair *pair = opaque;

    g_usleep(50000);
    vmf_session_cancel(pair->source);
    return NULL;
}

static void fails__cancelled_while_it_waits_for_ram(void **state)
{
    GThread *thread;
    Pair pair;

    (void)state;
    begin(&pair, true, true, ",channels=2");
    name(pair.source);
    thread = g_thread_new("cancel", cancel_soon, &pair);
    assert_false(vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, 0, PAGE));
    g_thread_join(thread);
    expect_source_error(&pair, VMF_ERROR_CANCELLED, "");
    pair_clear(&pair);
}

/* Freed at every moment: each side named or not. */
static void fails__ended_in_the_middle(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        Pair pair;

        begin(&pair, true, true, ",channels=2");
        if (i & 1) {
            name(pair.source);
        }
        if (i & 2) {
            name(pair.destination);
        }
        if (i & 4) {
            vmf_session_free(g_steal_pointer(&pair.source));
        } else {
            vmf_session_free(g_steal_pointer(&pair.destination));
        }
        pair_clear(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late__both_sides_name_their_ram),
        cmocka_unit_test(late__source_alone_names_its_ram),
        cmocka_unit_test(late__saving_waits_for_the_destination),
        cmocka_unit_test(late__return_path_works_before_ram),
        cmocka_unit_test(late__session_without_ram_completes),
        cmocka_unit_test(late__named_ram_that_nobody_saves_completes),
        cmocka_unit_test(loaded__the_source_may_still_keep_the_vm),
        cmocka_unit_test(unplaced__zero_pages_and_a_later_address),
        cmocka_unit_test(unplaced__ram_without_an_address_is_refused),
        cmocka_unit_test(fails__blocks_that_differ),
        cmocka_unit_test(fails__saving_before_naming),
        cmocka_unit_test(fails__naming_twice_or_in_vain),
        cmocka_unit_test(fails__a_destination_that_never_names_its_ram),
        cmocka_unit_test(fails__cancelled_while_it_waits_for_ram),
        cmocka_unit_test(fails__ended_in_the_middle),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
