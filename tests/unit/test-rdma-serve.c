/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-serve.c -- a channel of the destination: long work and full rings, as a test forces
 * them */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <vmferry/plugin/bytes.h>

#include "fake-verbs.h"
#include "destination/serve.h"

#define CHUNK (64u * 1024)
#define CHUNKS 32

static uint8_t *memory;
static RdmaChannel *channel;
static struct {
    unsigned zeroed; /* calls */
    uint64_t longest;
    bool cancel; /* in the first */
    unsigned results, acks;
    unsigned wanted_results; /* then it is over */
} seen;

static bool zero_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    (void)block;
    (void)offset;
    (void)error;
    seen.zeroed++;
    seen.longest = MAX(seen.longest, length);
    if (seen.cancel) {
        g_cancellable_cancel(conn->cancel);
    }
    return true;
}

static void *ram_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    (void)length;
    (void)error;
    return conn->blocks[block]->host + offset;
}

static const VmfConnHost host = {
    .zero_range = zero_range, .release_range = zero_range, .ram_range = ram_range};

/* The device completes what was sent, and the end comes when all answers are there. */
static void be_source(void *opaque)
{
    (void)opaque;
    seen.results += fake_verbs_count(WIRE_REGISTER_RESULT);
    seen.acks += fake_verbs_count(WIRE_ACK);
    fake_verbs_complete_all();
    if (seen.results >= seen.wanted_results) {
        g_atomic_int_set(&channel->conn->revoked, 1);
    }
}

static int set_up(void **state)
{
    (void)state;
    fake_verbs_init();
    memory = g_malloc0((size_t)CHUNKS * CHUNK);
    memset(&seen, 0, sizeof(seen));
    fake_verbs.peer = be_source;
    channel =
        fake_channel_new(VMF_ROLE_DESTINATION, &host, memory, (uint64_t)CHUNKS * CHUNK, CHUNK);
    channel->conn->base.cancel = g_cancellable_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_object_unref(channel->conn->base.cancel);
    fake_channel_free(channel);
    assert_int_equal(fake_verbs.registered, 0);
    fake_verbs_clear();
    g_free(memory);
    return 0;
}

static void ask_for_several(uint32_t chunk, uint32_t count)
{
    WireRegister request = {.wanted = count};
    const WireHeader header = {.kind = WIRE_REGISTER};
    uint8_t message[512];
    size_t size;

    for (uint32_t i = 0; i < count; i++) {
        request.chunks[i] = (WireChunk){.block = 0, .index = chunk + i};
    }
    wire_header_encode(&header, message);
    size = wire_register_encode(&request, message + WIRE_HEADER_BYTES,
                                sizeof(message) - WIRE_HEADER_BYTES);
    fake_verbs_deliver(message, WIRE_HEADER_BYTES + size);
}

static void ask_for(uint32_t chunk)
{
    ask_for_several(chunk, 1);
}

/* More requests than there are buffers for answers, and a device that takes its time with these. */
static void answers_wait_for_a_full_send_ring(void **state)
{
    g_autoptr(GError) error = NULL;
    const unsigned count = ENDPOINT_SEND_SLOTS + 2;

    (void)state;
    seen.wanted_results = count;
    for (unsigned i = 0; i < count; i++) {
        ask_for(i);
    }
    if (!serve_channel(&channel->conn->base, 0, &error)) {
        fail_msg("%s", error->message);
    }
    assert_int_equal(seen.results, count);
}

/* The queue pair goes while an answer waits for a place. */
static void lose_queue_pair(void *opaque)
{
    (void)opaque;
    fake_verbs_fail(IBV_WC_WR_FLUSH_ERR);
}

static void answers_do_not_wait_for_a_dead_queue_pair(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    fake_verbs.peer = lose_queue_pair;
    for (unsigned i = 0; i < ENDPOINT_SEND_SLOTS + 2; i++) {
        ask_for(i);
    }
    assert_false(serve_channel(&channel->conn->base, 0, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PEER_LOST));
}

static unsigned polls;

/* Always one message more. */
static void flood(void)
{
    const WireHeader header = {.kind = WIRE_NOP};
    uint8_t message[WIRE_HEADER_BYTES];

    if (++polls == 100) {
        g_cancellable_cancel(channel->conn->base.cancel);
    } else if (polls == 10000) {
        fail_msg("a channel that was cancelled goes on");
    }
    fake_verbs_complete_all();
    wire_header_encode(&header, message);
    fake_verbs_deliver(message, sizeof(message));
}

static void a_source_that_never_stops_is_cancelled(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    polls = 0;
    fake_verbs.polled = flood;
    assert_false(serve_channel(&channel->conn->base, 0, &error));
    fake_verbs.polled = NULL;
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_CANCELLED));
}

static void cancel_now(void)
{
    g_cancellable_cancel(channel->conn->base.cancel);
}

static void a_long_request_ends_when_it_is_cancelled(void **state)
{
    (void)state;
    fake_verbs.registered_one = cancel_now;
    ask_for_several(0, 16);
    assert_false(serve_channel(&channel->conn->base, 0, NULL));
    assert_int_equal(channel->counters->registrations, 1);
}

static void *deliver_without_an_event(void *opaque)
{
    (void)opaque;
    while (!g_atomic_int_get(&fake_verbs.armed)) {
        g_usleep(1000);
    }
    g_usleep(50000); /* by then it sleeps; if not, it finds the message without our help */
    ask_for(0);
    return NULL;
}

/* As when the kernel finds no memory for the event. */
static void a_lost_completion_event_loses_nothing(void **state)
{
    g_autoptr(GError) error = NULL;
    GThread *thread;

    (void)state;
    seen.wanted_results = 1;
    thread = g_thread_new("source", deliver_without_an_event, NULL);
    if (!serve_channel(&channel->conn->base, 0, &error)) {
        fail_msg("%s", error->message);
    }
    g_thread_join(thread);
    assert_int_equal(seen.results, 1);
}

static void deliver_zero(uint64_t bytes)
{
    const WireRange range = {.length = (uint32_t)bytes};
    const WireHeader header = {.kind = WIRE_ZERO};
    uint8_t message[WIRE_HEADER_BYTES + WIRE_RANGE_BYTES];

    ((VmfRamBlock *)channel->conn->base.blocks[0])->length = bytes;
    channel->conn->options.registration = RDMA_REGISTRATION_PIN_ALL;
    wire_header_encode(&header, message);
    wire_range_encode(&range, message + WIRE_HEADER_BYTES);
    fake_verbs_deliver(message, sizeof(message));
}

static void a_zero_range_of_no_bytes_is_refused(void **state)
{
    const WireRange range = {.length = 0};
    const WireHeader header = {.kind = WIRE_ZERO};
    uint8_t message[WIRE_HEADER_BYTES + WIRE_RANGE_BYTES];
    g_autoptr(GError) error = NULL;

    (void)state;
    wire_header_encode(&header, message);
    wire_range_encode(&range, message + WIRE_HEADER_BYTES);
    fake_verbs_deliver(message, sizeof(message));
    assert_false(serve_channel(&channel->conn->base, 0, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PROTOCOL));
}

static void restore_length(void)
{
    ((VmfRamBlock *)channel->conn->base.blocks[0])->length = (uint64_t)CHUNKS * CHUNK;
}

static void long_work_shows_signs_of_life(void **state)
{
    (void)state;
    channel->conn->base.heartbeat_ms = 0;
    deliver_zero(512u << 20);
    assert_true(serve_channel(&channel->conn->base, 0, NULL));
    assert_true(seen.longest <= 64u << 20);
    assert_true(seen.acks >= 4); /* as many as there are buffers for, when nothing completes */
    restore_length();
}

static void long_work_ends_when_it_is_cancelled(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    seen.cancel = true;
    deliver_zero(512u << 20);
    assert_false(serve_channel(&channel->conn->base, 0, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_CANCELLED));
    assert_int_equal(seen.zeroed, 1);
    restore_length();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_wait_for_a_full_send_ring, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_do_not_wait_for_a_dead_queue_pair, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_source_that_never_stops_is_cancelled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_long_request_ends_when_it_is_cancelled, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_zero_range_of_no_bytes_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lost_completion_event_loses_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_work_shows_signs_of_life, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_work_ends_when_it_is_cancelled, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
