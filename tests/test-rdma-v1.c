/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-v1.c -- stock QEMU's protocol: how long a peer may be silent */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake-verbs.h"
#include "v1.h"

#define CHUNK (64u * 1024)

static uint8_t memory[CHUNK];

/* A channel whose peer said its last word longer ago than it may. */
static RdmaChannel *silent_channel(VmfRole role)
{
    RdmaChannel *channel = fake_channel_new(role, NULL, memory, CHUNK, CHUNK);

    channel->conn->v1 = g_new0(V1, 1);
    channel->conn->v1->last_heard = g_get_monotonic_time() - V1_SILENCE_US - G_TIME_SPAN_SECOND;
    return channel;
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

static void free_channel(RdmaChannel *channel)
{
    g_clear_pointer(&channel->conn->v1, g_free);
    fake_channel_free(channel);
}

/* It has said READY: a source that is paused before its switchover has the word. */
static void silence__of_who_waits_for_us_is_no_fault(void **state)
{
    RdmaChannel *channel = silent_channel(VMF_ROLE_SOURCE);

    (void)state;
    channel->conn->v1->ready = true;
    assert_true(v1_probe(channel, NULL));
    channel->conn->v1->ready = false; /* something was sent: from now on it owes an answer */
    assert_true(v1_probe(channel, NULL));
    free_channel(channel);
}

static void silence__of_who_owes_an_answer_ends(void **state)
{
    RdmaChannel *channel = silent_channel(VMF_ROLE_SOURCE);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(v1_probe(channel, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT));
    free_channel(channel);
}

static void silence__of_a_source_ends(void **state)
{
    RdmaChannel *channel = silent_channel(VMF_ROLE_DESTINATION);

    (void)state;
    assert_false(v1_probe(channel, NULL));
    free_channel(channel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(silence__of_who_waits_for_us_is_no_fault, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(silence__of_who_owes_an_answer_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(silence__of_a_source_ends, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
