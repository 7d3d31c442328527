/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-v1.c -- stock QEMU's protocol: a silent peer, a return path that cannot be opened */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake-verbs.h"
#include "qemu-v1/v1-back.h"
#include "qemu-v1/v1-link.h"
#include "qemu-v1/v1-state.h"

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
    free_channel(channel);
}

/* READY alone is no answer to what was asked. */
static void silence__of_who_was_asked_ends(void **state)
{
    RdmaChannel *channel = silent_channel(VMF_ROLE_SOURCE);

    (void)state;
    channel->conn->v1->ready = true;
    channel->conn->v1->blocks_asked = true;
    assert_false(v1_probe(channel, NULL));
    channel->conn->v1->blocks_known = true;
    assert_true(v1_probe(channel, NULL));
    channel->registrar.request_count = 1;
    assert_false(v1_probe(channel, NULL));
    channel->registrar.request_count = 0;
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

/* --- the return path --- */

static struct {
    unsigned made, destroyed; /* event channels */
    bool bad;                 /* the next one's descriptor is none */
} events;

struct rdma_event_channel *rdma_create_event_channel(void)
{
    struct rdma_event_channel *channel = g_new0(struct rdma_event_channel, 1);

    events.made++;
    channel->fd = events.bad ? -1 : dup(0);
    return channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
    events.destroyed++;
    if (channel->fd >= 0) {
        close(channel->fd);
    }
    g_free(channel);
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *opaque,
                   enum rdma_port_space space)
{
    (void)channel;
    (void)id;
    (void)opaque;
    (void)space;
    errno = ENOMEM;
    return -1;
}

/* The first attempt's descriptor fails, the others' ids do. */
static void return_path__attempts_that_fail_keep_one_event_channel(void **state)
{
    RdmaChannel *channel = silent_channel(VMF_ROLE_SOURCE);
    RdmaConn *conn = channel->conn;
    struct rdma_cm_id id = {0};

    (void)state;
    memset(&events, 0, sizeof(events));
    conn->id = &id;
    conn->v1->greeted = 1;
    events.bad = true;
    assert_false(v1_open_back(&conn->base, NULL));
    assert_int_equal(events.destroyed, 1);
    events.bad = false;
    for (unsigned i = 0; i < 3; i++) {
        g_autoptr(GError) error = NULL;

        assert_false(v1_open_back(&conn->base, &error));
        assert_non_null(strstr(error->message, "return path"));
    }
    assert_int_equal(events.made, 2);
    v1_free(g_steal_pointer(&conn->v1));
    assert_int_equal(events.destroyed, 2);
    fake_channel_free(channel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(silence__of_who_waits_for_us_is_no_fault, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(silence__of_who_was_asked_ends, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(silence__of_who_owes_an_answer_ends, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(silence__of_a_source_ends, fake_verbs_set_up,
                                        fake_verbs_tear_down),
        cmocka_unit_test_setup_teardown(return_path__attempts_that_fail_keep_one_event_channel,
                                        fake_verbs_set_up, fake_verbs_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
