/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-setup.c -- what a destination tells in the set-up
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <vmferry/plugin/bytes.h>

#include "fake-verbs.h"
#include "connection/setup.h"

#define CHUNK (64u * 1024)

static uint8_t memory[CHUNK];

static bool tell_address(VmfConn *base, uint32_t number)
{
    uint8_t message[12];
    VmfWriter w = vmf_writer(message, sizeof(message));

    vmf_write_be32(&w, number);
    vmf_write_be64(&w, 0x1000 + number);
    return setup_control_message(base, WIRE_PRIVATE_ADDRESSES, message, sizeof(message), NULL);
}

static RdmaConn *source_before_setup(void)
{
    RdmaConn *conn = fake_channel_new(VMF_ROLE_SOURCE, NULL, memory, CHUNK, CHUNK)->conn;

    discards_clear(&conn->discards);
    chunks_clear(&conn->chunks);
    g_clear_pointer(&conn->zero_marks, g_free);
    g_mutex_init(&conn->setup_lock);
    g_cond_init(&conn->setup_cond);
    conn->addresses = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->rkeys = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    conn->options.registration = RDMA_REGISTRATION_CHUNK;
    return conn;
}

static void free_source(RdmaConn *conn)
{
    g_array_unref(conn->addresses);
    g_array_unref(conn->rkeys);
    g_mutex_clear(&conn->setup_lock);
    g_cond_clear(&conn->setup_cond);
    fake_channel_free(conn->channels[0]);
}

static void addresses__one_for_each_block_is_used(void **state)
{
    RdmaConn *conn = source_before_setup();

    (void)state;
    assert_true(tell_address(&conn->base, 0));
    assert_true(setup_ram(&conn->base, NULL));
    assert_int_equal(conn->chunks.remote[0], 0x1000);
    free_source(conn);
}

static void addresses__that_are_too_many_are_refused(void **state)
{
    RdmaConn *conn = source_before_setup();
    g_autoptr(GError) error = NULL;

    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        assert_true(tell_address(&conn->base, i));
    }
    assert_false(setup_ram(&conn->base, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PROTOCOL));
    assert_non_null(strstr(error->message, "2000 addresses"));
    free_source(conn);
}

static void addresses__that_skip_one_are_refused(void **state)
{
    RdmaConn *conn = source_before_setup();

    (void)state;
    assert_false(tell_address(&conn->base, 1));
    assert_true(tell_address(&conn->base, 0) && setup_ram(&conn->base, NULL));
    free_source(conn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(addresses__one_for_each_block_is_used, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(addresses__that_are_too_many_are_refused, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(addresses__that_skip_one_are_refused, fake_verbs_set_up,
                                        fake_verbs_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
