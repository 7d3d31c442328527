/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-setup.c -- what a destination tells in the set-up, and a control thread that hears more
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <vmferry/bytes.h>

#include "fake-verbs.h"

#define CHUNK (64u * 1024)
#define SURPLUS 2000u

static uint8_t memory[CHUNK];

/* The control thread: one address that is right, and then more than there are blocks. */
static void *tell_addresses(void *opaque)
{
    VmfConn *base = opaque;

    for (uint32_t i = 0; i < SURPLUS; i++) {
        uint8_t message[12];
        VmfWriter w = vmf_writer(message, sizeof(message));

        vmf_write_be32(&w, i);
        vmf_write_be64(&w, 0x1000);
        assert_true(
            rdma_control_message(base, WIRE_PRIVATE_ADDRESSES, message, sizeof(message), NULL));
    }
    return NULL;
}

/* Either it has seen the one alone, or there are too many; it never reads what is being moved. */
static void addresses__that_are_too_many_are_read_under_the_lock(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 50; run++) {
        RdmaChannel *channel = fake_channel_new(VMF_ROLE_SOURCE, NULL, memory, CHUNK, CHUNK);
        RdmaConn *conn = channel->conn;
        g_autoptr(GError) error = NULL;
        GThread *thread;

        discards_clear(&conn->discards);
        chunks_clear(&conn->chunks);
        g_clear_pointer(&conn->zero_marks, g_free);
        g_mutex_init(&conn->setup_lock);
        g_cond_init(&conn->setup_cond);
        conn->addresses = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        conn->rkeys = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        conn->options.registration = RDMA_REGISTRATION_CHUNK;
        thread = g_thread_new("control", tell_addresses, &conn->base);
        if (rdma_ram_setup(&conn->base, &error)) {
            assert_int_equal(conn->chunks.remote[0], 0x1000);
        } else {
            assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PROTOCOL));
        }
        g_thread_join(thread);
        g_array_unref(conn->addresses);
        g_array_unref(conn->rkeys);
        g_mutex_clear(&conn->setup_lock);
        g_cond_clear(&conn->setup_cond);
        fake_channel_free(channel);
    }
}

static int set_up(void **state)
{
    (void)state;
    fake_verbs_init();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_verbs_clear();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(addresses__that_are_too_many_are_read_under_the_lock,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
