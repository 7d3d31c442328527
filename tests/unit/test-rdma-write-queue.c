/* SPDX-License-Identifier: BSD-2-Clause */
/* test-rdma-write-queue.c -- the source's writes and registrations, in orders that a test forces */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fake-verbs.h"
#include "source/ram-source.h"

#define CHUNK (64u * 1024)
#define CHUNKS 400
#define RANGE 512u

static uint8_t *memory;
static RdmaChannel *channel;

/* What the destination says to one chunk of a request: 0, or an errno. */
typedef int (*Verdict)(unsigned number);

typedef struct Destination {
    Verdict verdict;
    unsigned answered; /* chunks */
    unsigned requests_seen;
    bool device_is_slow; /* writes are not done */
    uint32_t processed;
} Destination;

static Destination destination;

static int always(unsigned number)
{
    (void)number;
    return 0;
}

static void answer(const WireRegister *request)
{
    uint8_t message[WIRE_HEADER_BYTES + WIRE_REGISTER_MAX * 8];
    WireResult results[WIRE_REGISTER_MAX];
    const WireHeader header = {.kind = WIRE_REGISTER_RESULT, .processed = destination.processed};
    size_t size;

    for (unsigned i = 0; i < request->wanted; i++) {
        const int err = destination.verdict(destination.answered++);

        results[i] = (WireResult){.status = (uint32_t)err, .rkey = err ? 0 : 77};
    }
    wire_header_encode(&header, message);
    size = wire_results_encode(results, request->wanted, message + WIRE_HEADER_BYTES,
                               sizeof(message) - WIRE_HEADER_BYTES);
    fake_verbs_deliver(message, WIRE_HEADER_BYTES + size);
}

/* Completes what was posted, and answers the requests among it. */
static void be_destination(void *opaque)
{
    const unsigned count = fake_verbs.requests->len;

    (void)opaque;
    for (unsigned i = 0; i < count; i++) {
        WireRegister request;
        WireHeader header;
        size_t size;
        const uint8_t *body = fake_verbs_message(i, &header, &size);

        destination.processed += body && header.kind != WIRE_ACK;
        if (body && header.kind == WIRE_REGISTER) {
            assert_true(wire_register_decode(body, size, &request, NULL));
            destination.requests_seen++;
            answer(&request);
        }
    }
    if (!destination.device_is_slow) {
        fake_verbs_complete(count);
    }
}

static int set_up(void **state)
{
    (void)state;
    fake_verbs_init();
    memory = g_malloc0((size_t)CHUNKS * CHUNK);
    destination = (Destination){.verdict = always};
    fake_verbs.peer = be_destination;
    channel = fake_channel_new(VMF_ROLE_SOURCE, NULL, memory, (uint64_t)CHUNKS * CHUNK, CHUNK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_verbs.peer = NULL;
    fake_channel_free(channel);
    assert_int_equal(fake_verbs.registered, 0);
    fake_verbs_clear();
    g_free(memory);
    return 0;
}

static void send_chunk(unsigned chunk, unsigned range)
{
    g_autoptr(GError) error = NULL;

    if (!source_send_ram(&channel->conn->base, 0, 0, (uint64_t)chunk * CHUNK + range * RANGE, RANGE,
                         &error)) {
        fail_msg("%s", error->message);
    }
}

static void make_ready(unsigned chunk)
{
    send_chunk(chunk, 0);
    assert_true(write_queue_post_all(channel, NULL) && write_queue_drain(channel, NULL));
}

/* A message goes out between the listing of a write and its posting, and is completed alone. */
static void a_chunk_is_not_evicted_under_its_write(void **state)
{
    (void)state;
    channel->registrar.pin_budget = 2 * CHUNK;
    make_ready(0);
    make_ready(1);
    destination.device_is_slow = true;
    send_chunk(1, 1); /* listed; makes chunk 0 the oldest */
    send_chunk(0, 1); /* listed after it */
    assert_int_equal(channel->writes.listed, 2);
    for (unsigned i = 0; i < 2; i++) {
        endpoint_body(channel->ep);
        assert_true(endpoint_send(channel->ep, WIRE_NOP, 0, 0, NULL));
    }
    assert_true(write_queue_post_list(channel, NULL));
    fake_verbs_complete(2); /* the messages: both writes are still under way */
    assert_true(endpoint_poll(channel->ep, NULL));
    send_chunk(2, 0); /* needs the place of another */
    assert_true(write_queue_push(channel, NULL));
    assert_int_equal(fake_verbs.freed_under_write, 0);
    destination.device_is_slow = false;
    assert_true(write_queue_post_all(channel, NULL) && write_queue_drain(channel, NULL));
    assert_int_equal(fake_verbs.freed_under_write, 0);
    assert_int_equal(channel->counters->evictions, 1);
}

static int refuses_eight(unsigned number)
{
    return number >= 1 && number <= REGISTRAR_REQUESTS_MAX ? ENOMEM : 0;
}

/* Requests of one chunk each, all that may be out, come back while as many as can be are wanted. */
static void refused_sparse_requests_are_wanted_again(void **state)
{
    unsigned chunk = 1;

    (void)state;
    destination.verdict = refuses_eight;
    make_ready(0);
    for (; chunk <= REGISTRAR_REQUESTS_MAX; chunk++) {
        send_chunk(chunk, 0);
        assert_true(source_kick(&channel->conn->base, 0, NULL));
    }
    assert_int_equal(channel->registrar.request_count, REGISTRAR_REQUESTS_MAX);
    for (; chunk < CHUNKS; chunk++) { /* waits as soon as no more can be wanted */
        send_chunk(chunk, 0);
    }
    assert_true(write_queue_post_all(channel, NULL) && write_queue_drain(channel, NULL));
    assert_int_equal(channel->counters->writes, CHUNKS);
    assert_true(channel->counters->evictions > 0); /* the budget has shrunk */
}

static int refuses_all_but_one(unsigned number)
{
    return number ? ENOMEM : 0;
}

static void a_destination_that_refuses_all_ends_the_source_with_an_error(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    destination.verdict = refuses_all_but_one;
    make_ready(0);
    send_chunk(1, 0);
    assert_false(write_queue_post_all(channel, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_MEMLOCK));
}

/* --- zero pages --- */

/* A page is sent, and is zero before what was listed is posted. */
static void a_zero_page_does_not_overtake_its_older_write(void **state)
{
    WireHeader header;
    size_t size;

    (void)state;
    make_ready(0);
    destination.device_is_slow = true;
    send_chunk(0, 1);
    assert_int_equal(channel->writes.listed, 1);
    assert_true(source_send_zero(&channel->conn->base, 0, 0, RANGE, RANGE, NULL));
    send_chunk(1, 0); /* its registration is asked for after the zeros */
    assert_true(write_queue_register(channel, NULL));
    assert_int_equal(g_array_index(fake_verbs.requests, FakeRequest, 0).opcode, IBV_WR_RDMA_WRITE);
    assert_non_null(fake_verbs_message(1, &header, &size));
    assert_int_equal(header.kind, WIRE_ZERO);
    destination.device_is_slow = false;
    assert_true(write_queue_post_all(channel, NULL) && write_queue_drain(channel, NULL));
}

/* --- discards --- */

static void discard(uint64_t offset, uint64_t length)
{
    VmfConn *base = &channel->conn->base;

    vmf_ram_discarded(base->ram, base->blocks[0], offset, length);
}

/* Of the local registration that the latest write was posted by. */
static uint32_t latest_key(void)
{
    const GArray *requests = fake_verbs.requests;

    for (unsigned i = requests->len; i-- > 0;) {
        const FakeRequest *request = &g_array_index(requests, FakeRequest, i);

        if (request->opcode == IBV_WR_RDMA_WRITE) {
            return request->lkey;
        }
    }
    fail_msg("no write was posted");
    return 0;
}

static uint32_t post_one(unsigned chunk, unsigned range)
{
    send_chunk(chunk, range);
    assert_true(source_kick(&channel->conn->base, 0, NULL));
    return latest_key();
}

static void a_discarded_chunk_is_registered_anew(void **state)
{
    uint32_t key, neighbour;

    (void)state;
    make_ready(3);
    make_ready(4);
    key = post_one(3, 1);
    neighbour = post_one(4, 1);
    assert_true(write_queue_drain(channel, NULL));
    discard(3 * CHUNK + 5 * RANGE, RANGE);
    assert_int_not_equal(post_one(3, 2), key);
    assert_int_equal(post_one(4, 2), neighbour);
    assert_int_equal(fake_verbs.freed_under_write, 0);
}

/* The write that is under way ends first, and what comes meanwhile waits in its order. */
static void a_chunk_discarded_under_a_write_is_registered_anew_after_it(void **state)
{
    uint32_t key;

    (void)state;
    make_ready(3);
    destination.device_is_slow = true;
    key = post_one(3, 1);
    discard(3 * CHUNK, CHUNK);
    send_chunk(3, 2);
    assert_int_equal(channel->writes.pending_count, 1);
    assert_int_equal(latest_key(), key);
    assert_true(source_kick(&channel->conn->base, 0, NULL));
    fake_verbs_complete_all();
    assert_true(write_queue_progress(channel, NULL));
    assert_int_equal(channel->writes.pending_count, 0);
    assert_int_not_equal(latest_key(), key);
    assert_int_equal(fake_verbs.freed_under_write, 0);
}

/* With all RAM pinned: other channels may be writing by the chunk that the stripe lies in. */
static void a_discarded_stripe_of_a_pinned_chunk_gets_a_registration_of_its_own(void **state)
{
    RdmaConn *conn = channel->conn;
    uint32_t key, renewed;

    (void)state;
    discards_clear(&conn->discards);
    conn->base.stripe = CHUNK / 16;
    assert_true(discards_init(&conn->discards, &conn->base, NULL));
    channel->registrar.dynamic = false;
    assert_int_equal(chunks_register(&conn->chunks, 0, 3, channel->counters), 0);
    conn->chunks.chunks[3].state = CHUNK_READY;
    destination.device_is_slow = true;
    key = post_one(3, 0);
    discard(3 * CHUNK, RANGE);
    renewed = post_one(3, 0);
    assert_int_not_equal(renewed, key);
    assert_int_equal(post_one(3, 1), renewed);             /* the same stripe */
    assert_int_equal(post_one(3, CHUNK / RANGE - 1), key); /* another */
    discard(3 * CHUNK, RANGE);
    send_chunk(3, 2); /* the stripe's own registration is in use: waits */
    assert_int_equal(channel->writes.pending_count, 1);
    destination.device_is_slow = false;
    assert_true(write_queue_post_all(channel, NULL) && write_queue_drain(channel, NULL));
    assert_int_equal(fake_verbs.freed_under_write, 0);
    assert_int_equal(fake_verbs.registered, 3); /* message buffers, chunk, stripe */
}

/* --- slow peers --- */

static gint64 answer_at; /* of a slow destination; 0: never */

/* A device that completes at once, and a process that takes its time. */
static void be_slow(void *opaque)
{
    if (answer_at && g_get_monotonic_time() >= answer_at) {
        be_destination(opaque);
        return;
    }
    /* Messages stay where they are, for be_destination; the device is through with them. */
    for (unsigned i = 0; i < fake_verbs.requests->len; i++) {
        FakeRequest *request = &g_array_index(fake_verbs.requests, FakeRequest, i);

        if (request->signaled) {
            request->signaled = false;
            g_queue_push_tail(&fake_verbs.completions, g_new0(struct ibv_wc, 1));
        }
    }
}

/* `heard': the control connection has its heartbeats. */
static void start_slow(bool heard, unsigned answer_after_ms)
{
    const gint64 now = g_get_monotonic_time();

    channel->conn->base.timeout_ms = 200;
    channel->conn->base.heartbeat_ms = 10;
    channel->conn->heard_at = heard ? now + G_TIME_SPAN_HOUR : 0;
    answer_at = answer_after_ms ? now + answer_after_ms * G_TIME_SPAN_MILLISECOND : 0;
    fake_verbs.peer = be_slow;
    send_chunk(0, 0);
}

static void a_destination_at_work_is_waited_for_while_it_lives(void **state)
{
    (void)state;
    start_slow(true, 300); /* after the time-out */
    assert_true(write_queue_post_all(channel, NULL));
    fake_verbs.peer = be_destination;
    assert_true(write_queue_drain(channel, NULL));
    assert_int_equal(channel->counters->writes, 1);
}

static void a_destination_that_says_nothing_is_given_up(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    start_slow(false, 0);
    assert_false(write_queue_post_all(channel, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT));
}

static void a_channel_that_is_dead_while_the_control_connection_lives_ends(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    start_slow(true, 0);
    assert_false(write_queue_post_all(channel, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT));
}

/* What the device owes is not excused by a process that lives. */
static void a_device_that_completes_nothing_is_given_up(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    start_slow(true, 0);
    fake_verbs.peer = NULL;
    assert_false(write_queue_post_all(channel, &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT));
}

/* The bytes that zero messages on the send queue name. */
static uint64_t named_as_zero(void)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < fake_verbs.requests->len; i++) {
        WireHeader header;
        size_t size;
        const uint8_t *body = fake_verbs_message(i, &header, &size);

        for (size_t n = 0; body && header.kind == WIRE_ZERO && n < size / WIRE_RANGE_BYTES; n++) {
            WireRange range;

            wire_range_decode(body, n, &range);
            bytes += range.length;
        }
    }
    return bytes;
}

/* Nobody reads that memory: only the numbers count. */
static void zero_messages_do_not_name_gigabytes(void **state)
{
    VmfConn *base = &channel->conn->base;
    VmfRamBlock *block = (VmfRamBlock *)base->blocks[0];
    const uint64_t part = 64ull << 20, all = 4ull << 30;

    (void)state;
    block->length = all;
    for (uint64_t at = 0; at < all; at += part) {
        assert_true(source_send_zero(base, 0, 0, at, part, NULL));
        assert_true(named_as_zero() <= all / 8);
        be_destination(NULL);
        assert_true(write_queue_progress(channel, NULL));
    }
    block->length = (uint64_t)CHUNKS * CHUNK;
    assert_true(channel->ep->sent >= 7);
}

/* Or the end of a queue pair waits for receives that were handed back long ago. */
static void completions_after_a_failed_one_count(void **state)
{
    g_autoptr(GError) error = NULL;
    const unsigned posted = channel->ep->receives_posted;
    const uint8_t ack[] = {0, WIRE_ACK, 0, 0, 0, 0, 0, 0};

    (void)state;
    assert_true(posted > 2);
    fake_verbs_fail(IBV_WC_RETRY_EXC_ERR);
    fake_verbs_fail(IBV_WC_REM_ACCESS_ERR);
    fake_verbs_deliver(ack, sizeof(ack));
    fake_verbs_deliver(ack, sizeof(ack));
    assert_false(endpoint_poll(channel->ep, &error));
    assert_non_null(strstr(error->message, "no longer answers"));
    assert_int_equal(channel->ep->receives_posted, posted - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_chunk_is_not_evicted_under_its_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused_sparse_requests_are_wanted_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_destination_that_refuses_all_ends_the_source_with_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_zero_page_does_not_overtake_its_older_write, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_discarded_chunk_is_registered_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_chunk_discarded_under_a_write_is_registered_anew_after_it,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_discarded_stripe_of_a_pinned_chunk_gets_a_registration_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_destination_at_work_is_waited_for_while_it_lives, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_destination_that_says_nothing_is_given_up, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_channel_that_is_dead_while_the_control_connection_lives_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_device_that_completes_nothing_is_given_up, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(zero_messages_do_not_name_gigabytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(completions_after_a_failed_one_count, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
