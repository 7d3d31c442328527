/* SPDX-License-Identifier: BSD-2-Clause */
/* test-session-failures.c -- sessions that are revoked, cancelled, refused or left alone */

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "support/pair.h"
#include "support/test-filter.h"

#define MIB (1024u * 1024)

static void revoke__leaves_the_stream_open(void **state)
{
    Pair pair;
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfFile) back_out = NULL;
    g_autoptr(VmfFile) back_in = NULL;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=2");
    pair_connect(&pair);
    back_out = vmf_file_get_return_path(vmf_session_get_file(pair.destination), NULL);
    back_in = vmf_file_get_return_path(vmf_session_get_file(pair.source), NULL);
    assert_true(vmf_flush_ram_pages(vmf_session_get_file(pair.source), VMF_FLUSH_FINAL));
    vmf_put_byte(vmf_session_get_file(pair.source), 6);
    assert_true(vmf_file_flush(vmf_session_get_file(pair.source), NULL));
    assert_int_equal(vmf_get_byte(vmf_session_get_file(pair.destination)), 6);
    assert_false(vmf_session_revoke(pair.source, NULL));
    assert_true(vmf_session_revoke(pair.destination, &error));
    vmf_put_be64(back_out, 7);
    assert_true(vmf_file_flush(back_out, NULL));
    assert_int_equal(vmf_get_be64(back_in), 7);
    vmf_put_be32(vmf_session_get_file(pair.source), 8);
    assert_true(vmf_file_flush(vmf_session_get_file(pair.source), NULL));
    assert_int_equal(vmf_get_be32(vmf_session_get_file(pair.destination)), 8);
    g_clear_pointer(&back_in, vmf_file_free);
    g_clear_pointer(&back_out, vmf_file_free);
    pair_disconnect(&pair);
    pair_clear(&pair);
}

/*
 * After a revocation that is too early, the stream may wait for syncs that cannot come. That is an
 * error, and not a hang. Whether it is too early depends on timing here.
 */
static void revoke__too_early_is_an_error(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=2");
    for (unsigned turn = 0; turn < 8; turn++) {
        g_autoptr(GError) error = NULL;
        VmfFile *in;

        pair_connect(&pair);
        in = vmf_session_get_file(pair.destination);
        pair_save_all(&pair, 4096);
        vmf_flush_ram_pages(vmf_session_get_file(pair.source), VMF_FLUSH_FINAL);
        vmf_session_revoke(pair.destination, NULL);
        vmf_put_be32(vmf_session_get_file(pair.source), 8);
        vmf_file_flush(vmf_session_get_file(pair.source), NULL);
        if (vmf_get_be32(in) != 8) {
            assert_false(vmf_session_check(pair.destination, &error));
            assert_int_equal(error->code, VMF_ERROR_INVALID);
            assert_non_null(strstr(error->message, "before everything had arrived"));
        }
        pair_disconnect(&pair);
    }
    pair_clear(&pair);
}

static void blocks__a_mismatch_is_named_on_both_sides(void **state)
{
    static uint8_t extra[8192] __attribute__((aligned(4096)));
    Pair pair;
    g_autoptr(GError) source = NULL;
    g_autoptr(GError) destination = NULL;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=1");
    assert_non_null(vmf_ram_blocks_add(pair.source_blocks, "vga.vram", extra, 4096, 4096, NULL));
    assert_non_null(
        vmf_ram_blocks_add(pair.destination_blocks, "vga.vram", extra + 4096, 2048, 4096, NULL));
    assert_false(pair_try_connect(&pair, &source, &destination));
    assert_int_equal(source->code, VMF_ERROR_MISMATCH);
    assert_int_equal(destination->code, VMF_ERROR_MISMATCH);
    assert_non_null(strstr(source->message, "vga.vram"));
    assert_non_null(strstr(destination->message, "4096"));
    assert_non_null(strstr(destination->message, "2048"));
    pair_clear(&pair);
}

static void *wait_for_bytes(void *opaque)
{
    Pair *pair = opaque;
    GError *error = NULL;

    vmf_get_be32(vmf_session_get_file(pair->destination));
    vmf_session_check(pair->destination, &error);
    return error;
}

static void cancel__wakes_both_sides_and_a_new_session_works(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 8 * MIB, true, ",channels=2");
    pair_fill(pair.source_ram, pair.size, 2);
    for (unsigned turn = 0; turn < 4; turn++) {
        GThread *reader;
        g_autoptr(GError) error = NULL;

        pair_connect(&pair);
        reader = pair_destination(&pair, wait_for_bytes);
        pair_save_all(&pair, 4096);
        vmf_session_cancel(turn % 2 ? pair.source : pair.destination);
        error = g_thread_join(reader);
        assert_int_equal(error->code, VMF_ERROR_CANCELLED);
        while (vmf_session_check(pair.source, NULL)) {
            g_usleep(1000);
        }
        assert_false(vmf_session_complete(pair.source, NULL));
        pair_disconnect(&pair);
    }
    pair_connect(&pair);
    pair_save_all(&pair, 4096);
    pair_complete(&pair);
    pair_clear(&pair);
}

static void *cancel_soon(void *opaque)
{
    Pair *pair = opaque;

    g_usleep((gulong)g_random_int_range(0, 30000));
    vmf_session_cancel(g_random_boolean() ? pair->source : pair->destination);
    return NULL;
}

static void *read_to_the_end(void *opaque)
{
    Pair *pair = opaque;
    uint8_t bytes[4096];

    while (vmf_get_buffer(vmf_session_get_file(pair->destination), bytes, sizeof(bytes)) ==
           sizeof(bytes)) {
    }
    return GINT_TO_POINTER(vmf_session_complete(pair->destination, NULL));
}

static void cancel__at_random_moments_leaves_one_owner(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 8 * MIB, true, ",channels=3,timeout=3s");
    pair_fill(pair.source_ram, pair.size, 2);
    for (unsigned turn = 0; turn < 20; turn++) {
        GThread *reader, *canceller;
        g_autoptr(GError) error = NULL;
        bool source_gave, destination_owns;

        pair_connect(&pair);
        reader = pair_destination(&pair, read_to_the_end);
        canceller = pair_destination(&pair, cancel_soon);
        for (unsigned round = 0; round < 3; round++) {
            for (uint64_t at = 0; at < pair.size; at += 4096) {
                vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, at, 4096);
            }
            vmf_put_be64(vmf_session_get_file(pair.source), round);
            vmf_flush_ram_pages(vmf_session_get_file(pair.source), VMF_FLUSH_ROUND);
        }
        source_gave = vmf_session_complete(pair.source, &error);
        g_thread_join(canceller);
        destination_owns = GPOINTER_TO_INT(g_thread_join(reader));
        /* The destination may own the VM only if the source gave it, or does not know. */
        if (destination_owns) {
            assert_true(source_gave || error->code == VMF_ERROR_UNKNOWN_OUTCOME);
        } else {
            assert_false(source_gave);
        }
        pair_disconnect(&pair);
    }
    pair_clear(&pair);
}

static void peer__vanishing_fails_the_survivor(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=2,timeout=20s");
    for (unsigned turn = 0; turn < 2; turn++) {
        VmfSession **gone = turn ? &pair.source : &pair.destination;
        VmfSession **left = turn ? &pair.destination : &pair.source;
        g_autoptr(GError) error = NULL;

        pair_connect(&pair);
        vmf_session_free(g_steal_pointer(gone));
        while (vmf_session_check(*left, &error)) {
            g_usleep(1000);
        }
        assert_non_null(error);
        assert_false(vmf_session_complete(*left, NULL));
        pair_disconnect(&pair);
    }
    pair_clear(&pair);
}

static void complete__with_unread_bytes_is_an_error(void **state)
{
    Pair pair;
    g_autoptr(GError) error = NULL;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=1");
    pair_connect(&pair);
    vmf_put_be64(vmf_session_get_file(pair.source), 1);
    assert_true(vmf_file_flush(vmf_session_get_file(pair.source), NULL));
    assert_int_equal(vmf_get_be32(vmf_session_get_file(pair.destination)), 0);
    assert_false(vmf_session_complete(pair.destination, &error));
    assert_int_equal(error->code, VMF_ERROR_INVALID);
    pair_clear(&pair);
}

static void errors__the_first_wins(void **state)
{
    Pair pair;
    g_autoptr(GError) error = NULL;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=1");
    pair_connect(&pair);
    vmf_session_fail(pair.source, g_error_new(VMF_ERROR, VMF_ERROR_IO, "the first"));
    vmf_session_fail(pair.source, g_error_new(VMF_ERROR, VMF_ERROR_IO, "the second"));
    vmf_session_cancel(pair.source);
    assert_false(vmf_session_check(pair.source, &error));
    assert_string_equal(error->message, "the first");
    assert_false(vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, 0, 4096));
    g_clear_error(&error);
    while (vmf_session_check(pair.destination, &error)) {
        g_usleep(1000);
    }
    assert_non_null(strstr(error->message, "the first"));
    pair_clear(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(revoke__leaves_the_stream_open),
        cmocka_unit_test(revoke__too_early_is_an_error),
        cmocka_unit_test(blocks__a_mismatch_is_named_on_both_sides),
        cmocka_unit_test(cancel__wakes_both_sides_and_a_new_session_works),
        cmocka_unit_test(cancel__at_random_moments_leaves_one_owner),
        cmocka_unit_test(peer__vanishing_fails_the_survivor),
        cmocka_unit_test(complete__with_unread_bytes_is_an_error),
        cmocka_unit_test(errors__the_first_wins),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
