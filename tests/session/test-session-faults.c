/* SPDX-License-Identifier: BSD-2-Clause */
/* test-session-faults.c -- faults that once ended the process, or waited for ever */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/message.h"
#include "session/session-state.h"
#include "sides.h"
#include "session/session-post.h"
#include "support/test-filter.h"

#define RAM_BYTES (256u * 1024)

/* --- failing without a reason --- */

/* The session must fail with an error in any case, and the other side must hear of it. */
static void fails_without_a_reason(StepCall call, bool source)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    sides_begin(&sides, LONG);
    stepper_fail_silently(call);
    sides_complete(&sides);
    sides_join(&sides);
    assert_false(sides.source.ok);
    assert_non_null(sides.source.error);
    assert_false(vmf_session_check(source ? sides.pair.source : sides.pair.destination, &error));
    assert_non_null(error);
    sides_end(&sides);
}

static void no_reason__of_the_control_connection(void **state)
{
    (void)state;
    fails_without_a_reason(STEP_CONTROL_WAIT, true);
}

static void no_reason__of_revoke(void **state)
{
    (void)state;
    fails_without_a_reason(STEP_REVOKE, false);
}

static void no_reason__of_the_caller(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    sides_begin(&sides, LONG);
    vmf_session_fail(sides.pair.source, NULL);
    assert_false(vmf_session_check(sides.pair.source, &error));
    assert_non_null(error);
    sides_end(&sides);
}

static void no_reason__of_a_channel(void **state)
{
    g_autoptr(GError) source = NULL;
    g_autoptr(GError) destination = NULL;
    Pair pair;

    (void)state;
    stepper_reset();
    pair_init(&pair, RAM_BYTES, true, LONG);
    stepper_fail_silently(STEP_SERVE);
    pair_try_connect(&pair, &source, &destination);
    while (pair.destination && vmf_session_check(pair.destination, &destination)) {
        g_usleep(1000); /* it was set up, and its channel has not failed yet */
    }
    assert_non_null(destination);
    pair_clear(&pair);
}

static void no_reason__of_accept(void **state)
{
    g_autoptr(GError) error = NULL;
    Pair pair;

    (void)state;
    stepper_reset();
    pair_init(&pair, RAM_BYTES, true, LONG);
    stepper_fail_silently(STEP_ACCEPT);
    assert_null(vmf_session_accept(pair.listener, pair.destination_blocks, NULL, &error));
    assert_non_null(error);
    pair_clear(&pair);
}

/* --- codes of other domains --- */

static void code__of_another_domain_does_not_travel(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    sides_begin(&sides, LONG);
    /* The number is that of VMF_ERROR_MISMATCH. */
    vmf_session_fail(sides.pair.destination,
                     g_error_new(G_IO_ERROR, (int)VMF_ERROR_MISMATCH, "a job's own trouble"));
    while (vmf_session_check(sides.pair.source, &error)) {
        g_usleep(1000);
    }
    assert_int_equal(error->code, VMF_ERROR_PEER);
    assert_non_null(strstr(error->message, "a job's own trouble"));
    sides_end(&sides);
}

/* --- who speaks for a session --- */

/*
 * A peer that knows a session's UUID can say GO for it, and a generator with a seed would give it
 * away.
 */
static void uuid__cannot_be_computed(void **state)
{
    uint8_t uuids[2][VMF_UUID_BYTES];
    Sides sides;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        g_random_set_seed(1);
        sides_begin(&sides, LONG);
        memcpy(uuids[i], sides.pair.source->conn->uuid, VMF_UUID_BYTES);
        sides_end(&sides);
    }
    assert_memory_not_equal(uuids[0], uuids[1], VMF_UUID_BYTES);
}

/* --- a peer that only lives --- */

static void *connect_patiently(void *opaque)
{
    Pair *pair = opaque;
    g_autofree char *text = g_strconcat(vmf_listener_address(pair->listener),
                                        ",channels=1,timeout=20s,connect-timeout=60s", NULL);
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, NULL);

    return vmf_session_connect(uri, pair->source_blocks, NULL, NULL);
}

static void set_up__with_a_peer_that_only_shows_life_ends(void **state)
{
    g_autoptr(GError) error = NULL;
    GThread *source;
    Pair pair;

    (void)state;
    stepper_reset();
    pair_init(&pair, RAM_BYTES, true, ",channels=1,timeout=20s,connect-timeout=1s");
    stepper_swallow(S, MESSAGE_BLOCKS);
    source = g_thread_new("source", connect_patiently, &pair);
    assert_null(vmf_session_accept(pair.listener, pair.destination_blocks, NULL, &error));
    assert_int_equal(error->code, VMF_ERROR_TIMEOUT);
    assert_null(g_thread_join(source));
    pair_clear(&pair);
}

static void *connect_and_say(void *opaque)
{
    const Pair *pair = opaque;
    g_autofree char *text = g_strconcat(vmf_listener_address(pair->listener),
                                        ",channels=1,timeout=20s,connect-timeout=20s", NULL);
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, NULL);
    GError *error = NULL;

    assert_null(vmf_session_connect(uri, pair->source_blocks, NULL, &error));
    return error;
}

/* The source came between two accepts, and then the listener is freed. */
static void source__that_nobody_will_accept_is_told(void **state)
{
    const Step step = {S, STEP_BEFORE_SEND, MESSAGE_GO};
    g_autoptr(GError) error = NULL;
    GThread *second;
    Sides sides;

    (void)state;
    sides_complete_to(&sides, LONG, &step);
    second = g_thread_new("second", connect_and_say, &sides.pair);
    g_usleep(G_USEC_PER_SEC / 2); /* it is kept by then, or is refused without having been kept */
    vmf_listener_free(g_steal_pointer(&sides.pair.listener));
    error = g_thread_join(second);
    assert_int_equal(error->code, VMF_ERROR_REFUSED);
    stepper_go_on();
    sides_join(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    sides_end(&sides);
}

/* --- spinning --- */

/* A heartbeat is overdue, and the transport takes none. The thread must sleep all the same. */
static void heartbeat__that_cannot_be_sent_does_not_spin(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    sides_begin(&sides, ",channels=1,timeout=2s,connect-timeout=20s");
    stepper_clog(S);
    while (vmf_session_check(sides.pair.destination, &error)) {
        g_usleep(1000);
    }
    assert_in_range(stepper_waits(S), 1, 1000); /* it was more than 100,000 */
    sides_end(&sides);
}

/* --- a peer that asks and does not read --- */

static unsigned waiting(VmfSession *s)
{
    unsigned count;

    g_mutex_lock(&s->core.lock);
    count = s->outbox.messages.length;
    g_mutex_unlock(&s->core.lock);
    return count;
}

static void questions__without_end_take_bounded_memory(void **state)
{
    g_autoptr(GError) error = NULL;
    unsigned asked = 0;
    Sides sides;

    (void)state;
    sides_begin(&sides, LONG);
    stepper_clog(D);
    /* Each question is answered, and no answer leaves. */
    while (vmf_session_check(sides.pair.destination, &error) && asked < 1000000) {
        if (waiting(sides.pair.source) < 1000) {
            session_post(sides.pair.source, MESSAGE_SETTLE, 0, 0, NULL, 0);
            asked++;
        }
    }
    assert_non_null(error);
    assert_int_equal(error->code, VMF_ERROR_PROTOCOL);
    assert_non_null(strstr(error->message, "reads none"));
    assert_in_range(waiting(sides.pair.destination), 1, 100000);
    sides_end(&sides);
}

/* --- a session that is to end --- */

/* Waits until the source knows the outcome. */
static void await_known(VmfSession *session)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    bool known = false;

    while (!known) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->core.lock);
        known = session->peer.handover.known;
        g_mutex_unlock(&session->core.lock);
        g_usleep(1000);
    }
}

/* Waits until the control thread reads and sends no more. */
static void await_over(VmfSession *session)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    bool over = false;

    while (!over) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->core.lock);
        over = session->outbox.over;
        g_mutex_unlock(&session->core.lock);
        g_usleep(1000);
    }
}

/* The peer lives, and takes nothing more. That must hold nobody. */
static void free__of_a_session_that_cannot_send_ends(void **state)
{
    Sides sides;

    (void)state;
    sides_begin(&sides, LONG);
    sides_complete(&sides);
    sides_join(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    await_known(sides.pair.destination);
    stepper_clog(D);
    session_post(sides.pair.destination, MESSAGE_SETTLED, 0, 0, NULL, 0);
    vmf_session_free(g_steal_pointer(&sides.pair.destination));
    /*
     * The session ended before the source's time-out for a silent peer: the source sees it close.
     */
    await_over(sides.pair.source);
    assert_true(sides.pair.source->control.ended);
    stepper_clog(0);
    pair_clear(&sides.pair);
}

/* The peer never stops sending. A cancel is heard all the same, and the peer is told. */
static void cancel__is_heard_in_a_flood_of_messages(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    sides_begin(&sides, LONG);
    stepper_flood(D);
    vmf_session_cancel(sides.pair.destination);
    while (vmf_session_check(sides.pair.source, &error)) {
        g_usleep(1000);
    }
    assert_int_equal(error->code, VMF_ERROR_CANCELLED);
    vmf_session_free(g_steal_pointer(&sides.pair.destination));
    stepper_flood(0);
    pair_clear(&sides.pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_reason__of_the_control_connection),
        cmocka_unit_test(no_reason__of_revoke),
        cmocka_unit_test(no_reason__of_the_caller),
        cmocka_unit_test(no_reason__of_a_channel),
        cmocka_unit_test(no_reason__of_accept),
        cmocka_unit_test(code__of_another_domain_does_not_travel),
        cmocka_unit_test(uuid__cannot_be_computed),
        cmocka_unit_test(set_up__with_a_peer_that_only_shows_life_ends),
        cmocka_unit_test(source__that_nobody_will_accept_is_told),
        cmocka_unit_test(heartbeat__that_cannot_be_sent_does_not_spin),
        cmocka_unit_test(questions__without_end_take_bounded_memory),
        cmocka_unit_test(free__of_a_session_that_cannot_send_ends),
        cmocka_unit_test(cancel__is_heard_in_a_flood_of_messages),
    };

    sides_prepare();
    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
