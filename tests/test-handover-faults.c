/* SPDX-License-Identifier: BSD-2-Clause */
/* test-handover-faults.c -- what once gave two owners, forgot an outcome, or waited for ever */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "message.h"
#include "pair.h"
#include "session.h"
#include "stepper.h"

#define RAM_BYTES (256u * 1024)
#define S VMF_ROLE_SOURCE
#define D VMF_ROLE_DESTINATION

typedef struct Side {
    VmfSession *session;
    GThread *thread;
    bool ok;
    GError *error;
} Side;

typedef struct Sides {
    Pair pair;
    Side source, destination;
} Sides;

static void *complete_main(void *opaque)
{
    Side *side = opaque;

    side->ok = vmf_session_complete(side->session, &side->error);
    return NULL;
}

static void begin(Sides *sides, const char *options)
{
    stepper_reset();
    memset(sides, 0, sizeof(*sides));
    pair_init(&sides->pair, RAM_BYTES, true, options);
    pair_connect(&sides->pair);
    sides->source.session = sides->pair.source;
    sides->destination.session = sides->pair.destination;
}

static void complete_both(Sides *sides)
{
    sides->destination.thread = g_thread_new("destination", complete_main, &sides->destination);
    sides->source.thread = g_thread_new("source", complete_main, &sides->source);
}

static void join_both(Sides *sides)
{
    g_thread_join(sides->source.thread);
    g_thread_join(sides->destination.thread);
}

static void end(Sides *sides)
{
    vmf_session_cancel(sides->pair.source);
    vmf_session_cancel(sides->pair.destination);
    pair_clear(&sides->pair);
    g_clear_error(&sides->source.error);
    g_clear_error(&sides->destination.error);
}

#define LONG ",channels=1,timeout=20s,connect-timeout=20s"

/* --- two owners --- */

/*
 * The source's control thread has looked whether the session failed, and is
 * about to send GO. A cancel now must not leave both sides with the VM.
 */
static void cancel__between_look_and_go_leaves_one_owner(void **state)
{
    const Step step = {S, STEP_NEXT_LOOK, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread); /* it answers before GO could go */
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_CANCELLED);
    stepper_go_on();
    g_thread_join(sides.destination.thread);
    assert_false(sides.destination.ok);
    end(&sides);
}

/* --- unknown --- */

static void outcome__that_is_unknown_stays_so(void **state)
{
    const Step step = {S, STEP_AFTER_SEND, MESSAGE_GO};
    g_autoptr(GError) again = NULL;
    g_autoptr(GError) check = NULL;
    g_autoptr(GError) cancelled = NULL;
    Sides sides;

    (void)state;
    begin(&sides, ",channels=1,timeout=1s,connect-timeout=20s");
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    join_both(&sides);
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_false(vmf_session_complete(sides.source.session, &again));
    assert_int_equal(again->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_false(vmf_session_check(sides.source.session, &check));
    assert_int_equal(check->code, VMF_ERROR_UNKNOWN_OUTCOME);
    vmf_session_cancel(sides.source.session);
    assert_false(vmf_session_check(sides.source.session, &cancelled));
    assert_int_equal(cancelled->code, VMF_ERROR_UNKNOWN_OUTCOME);
    end(&sides);
}

static void await_state(VmfSession *session, HandoverState wanted)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    HandoverState now = HANDOVER_STATES;

    while (now != wanted) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->lock);
        now = session->handover.state;
        g_mutex_unlock(&session->lock);
        g_usleep(1000);
    }
}

/* Who gives up asking does not know more than before: "cancelled" would mean that it owns the VM.
 */
static void outcome__is_unknown_when_asking_is_cancelled(void **state)
{
    const Step step = {S, STEP_AFTER_SEND, MESSAGE_GO};
    g_autoptr(GError) check = NULL;
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    await_state(sides.source.session, HANDOVER_ASKS);
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread);
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_int_equal(vmf_session_get_owner(sides.source.session), VMF_OWNER_UNKNOWN);
    assert_false(vmf_session_check(sides.source.session, &check));
    assert_int_equal(check->code, VMF_ERROR_UNKNOWN_OUTCOME);
    vmf_session_cancel(sides.destination.session);
    g_thread_join(sides.destination.thread);
    end(&sides);
}

/* A destination that no longer waits for the source's word never runs the VM, and says so. */
static void outcome__is_known_when_waiting_is_cancelled(void **state)
{
    const Step step = {D, STEP_AFTER_SEND, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    await_state(sides.destination.session, HANDOVER_WAITS);
    vmf_session_cancel(sides.destination.session);
    g_thread_join(sides.destination.thread);
    assert_false(sides.destination.ok);
    assert_int_equal(sides.destination.error->code, VMF_ERROR_CANCELLED);
    assert_int_equal(vmf_session_get_owner(sides.destination.session), VMF_OWNER_OTHER_SIDE);
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread);
    assert_false(sides.source.ok);
    end(&sides);
}

/* The destination notices a loss at once, the source by silence, and asks then: it is heard. */
static void loss__that_one_side_notices_late_leaves_both_knowing(void **state)
{
    const Step step = {S, STEP_BEFORE_SEND, MESSAGE_GO};
    Sides sides;

    (void)state;
    begin(&sides, ",channels=1,timeout=3s,connect-timeout=20s");
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    stepper_allow_connecting(false);
    stepper_cut_off(D);
    stepper_go_on();
    await_state(sides.source.session, HANDOVER_ASKS);
    g_usleep(G_USEC_PER_SEC); /* the first attempts do not get through */
    stepper_allow_connecting(true);
    join_both(&sides);
    if (!sides.source.ok || !sides.destination.ok) {
        fail_msg("the source says %s, the destination %s",
                 sides.source.error ? sides.source.error->message : "true",
                 sides.destination.error ? sides.destination.error->message : "true");
    }
    end(&sides);
}

/* What the source says of its failure gets lost with the link: it says so over another connection.
 */
static void error__that_is_lost_is_told_again(void **state)
{
    const Step step = {S, STEP_RECEIVED, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    begin(&sides, ",channels=1,timeout=3s,connect-timeout=20s");
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    stepper_silence();
    vmf_session_fail(sides.source.session,
                     g_error_new(VMF_ERROR, VMF_ERROR_IO, "the disk of the test is full"));
    stepper_go_on();
    join_both(&sides);
    assert_int_equal(vmf_session_get_owner(sides.source.session), VMF_OWNER_THIS_SIDE);
    assert_int_equal(vmf_session_get_owner(sides.destination.session), VMF_OWNER_OTHER_SIDE);
    end(&sides);
}

/* --- a cancel behind GO --- */

static void cancel_at(const Step *step, bool source)
{
    Sides sides;

    begin(&sides, LONG);
    stepper_stop_at(step);
    complete_both(&sides);
    assert_true(stepper_await());
    vmf_session_cancel(source ? sides.source.session : sides.destination.session);
    stepper_go_on();
    join_both(&sides);
    if (!sides.source.ok || !sides.destination.ok) {
        fail_msg("the source says %s, the destination %s",
                 sides.source.error ? sides.source.error->message : "true",
                 sides.destination.error ? sides.destination.error->message : "true");
    }
    end(&sides);
}

static void cancel__of_the_source_behind_go_spoils_nothing(void **state)
{
    const Step before = {D, STEP_RECEIVED, MESSAGE_GO}, after = {S, STEP_RECEIVED, MESSAGE_GO_SEEN};

    (void)state;
    cancel_at(&before, true);
    cancel_at(&after, true);
}

static void cancel__of_the_destination_behind_go_spoils_nothing(void **state)
{
    const Step step = {D, STEP_NEXT_LOOK, MESSAGE_GO};

    (void)state;
    cancel_at(&step, false);
}

/* --- after success --- */

static void *read_back(void *opaque)
{
    vmf_get_byte(opaque);
    return NULL;
}

/* Who reads the return path of a source that has given its VM away. */
static void reader_wakes_by(void (*event)(Sides *sides))
{
    g_autoptr(VmfFile) back = NULL;
    GThread *reader;
    Sides sides;

    begin(&sides, LONG);
    back = vmf_file_get_return_path(vmf_session_get_file(sides.pair.source), NULL);
    reader = g_thread_new("reader", read_back, back);
    complete_both(&sides);
    join_both(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    event(&sides);
    g_thread_join(reader); /* the alarm ends a wait for ever */
    assert_true(vmf_session_complete(sides.pair.source, NULL));
    assert_true(vmf_session_check(sides.pair.source, NULL));
    g_clear_pointer(&back, vmf_file_free);
    end(&sides);
}

static void cancel_it(Sides *sides)
{
    vmf_session_cancel(sides->pair.source);
}

static void shut_it_down(Sides *sides)
{
    vmf_file_shut_down(vmf_session_get_file(sides->pair.source));
}

static void end_its_peer(Sides *sides)
{
    vmf_session_free(g_steal_pointer(&sides->pair.destination));
}

static void success__reader_of_the_return_path_wakes(void **state)
{
    (void)state;
    reader_wakes_by(cancel_it);
    reader_wakes_by(shut_it_down);
    stepper_reset();
}

static void reader_wakes_by_the_peers_end(void)
{
    g_autoptr(VmfFile) back = NULL;
    GThread *reader;
    Sides sides;

    begin(&sides, LONG);
    back = vmf_file_get_return_path(vmf_session_get_file(sides.pair.source), NULL);
    reader = g_thread_new("reader", read_back, back);
    complete_both(&sides);
    join_both(&sides);
    end_its_peer(&sides);
    g_thread_join(reader);
    g_clear_pointer(&back, vmf_file_free);
    vmf_session_free(g_steal_pointer(&sides.pair.source));
    pair_clear(&sides.pair);
}

static void success__reader_wakes_by_the_peers_end(void **state)
{
    (void)state;
    reader_wakes_by_the_peers_end();
}

static void success__complete_again_says_yes(void **state)
{
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    complete_both(&sides);
    join_both(&sides);
    assert_true(vmf_session_complete(sides.pair.source, NULL));
    assert_true(vmf_session_complete(sides.pair.destination, NULL));
    end(&sides);
}

/* --- failing without a reason --- */

/* The session fails with an error all the same, and its other side hears of it. */
static void fails_without_a_reason(StepCall call, bool source)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    begin(&sides, LONG);
    stepper_fail_silently(call);
    complete_both(&sides);
    join_both(&sides);
    assert_false(sides.source.ok);
    assert_non_null(sides.source.error);
    assert_false(vmf_session_check(source ? sides.pair.source : sides.pair.destination, &error));
    assert_non_null(error);
    end(&sides);
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
    begin(&sides, LONG);
    vmf_session_fail(sides.pair.source, NULL);
    assert_false(vmf_session_check(sides.pair.source, &error));
    assert_non_null(error);
    end(&sides);
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
    begin(&sides, LONG);
    /* The number is VMF_ERROR_MISMATCH's. */
    vmf_session_fail(sides.pair.destination,
                     g_error_new(G_IO_ERROR, (int)VMF_ERROR_MISMATCH, "a job's own trouble"));
    while (vmf_session_check(sides.pair.source, &error)) {
        g_usleep(1000);
    }
    assert_int_equal(error->code, VMF_ERROR_PEER);
    assert_non_null(strstr(error->message, "a job's own trouble"));
    end(&sides);
}

/* --- who speaks for a session --- */

/* Who knows a session's UUID can say GO for it: a generator with a seed gives it away. */
static void uuid__cannot_be_computed(void **state)
{
    uint8_t uuids[2][VMF_UUID_BYTES];
    Sides sides;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        g_random_set_seed(1);
        begin(&sides, LONG);
        memcpy(uuids[i], sides.pair.source->conn->uuid, VMF_UUID_BYTES);
        end(&sides);
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

static void set_up__of_a_peer_that_only_lives_ends(void **state)
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

/* It came between two accepts, and the listener goes. */
static void source__that_nobody_will_accept_is_told(void **state)
{
    const Step step = {S, STEP_BEFORE_SEND, MESSAGE_GO};
    g_autoptr(GError) error = NULL;
    GThread *second;
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    stepper_stop_at(&step);
    complete_both(&sides);
    assert_true(stepper_await());
    second = g_thread_new("second", connect_and_say, &sides.pair);
    g_usleep(G_USEC_PER_SEC / 2); /* it is there by then, or is told without having been kept */
    vmf_listener_free(g_steal_pointer(&sides.pair.listener));
    error = g_thread_join(second);
    assert_int_equal(error->code, VMF_ERROR_REFUSED);
    stepper_go_on();
    join_both(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    end(&sides);
}

/* --- spinning --- */

/* A heartbeat is overdue, and the transport takes none: that is no reason to be awake. */
static void heartbeat__that_cannot_be_sent_does_not_spin(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    begin(&sides, ",channels=1,timeout=2s,connect-timeout=20s");
    stepper_clog(S);
    while (vmf_session_check(sides.pair.destination, &error)) {
        g_usleep(1000);
    }
    assert_in_range(stepper_waits(S), 1, 1000); /* it was more than 100,000 */
    end(&sides);
}

/* --- a peer that asks and does not read --- */

static unsigned waiting(VmfSession *s)
{
    unsigned count;

    g_mutex_lock(&s->lock);
    count = s->out.length;
    g_mutex_unlock(&s->lock);
    return count;
}

static void questions__without_end_cost_no_memory_without_end(void **state)
{
    g_autoptr(GError) error = NULL;
    unsigned asked = 0;
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    stepper_clog(D);
    /* Each is answered, and no answer leaves. */
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
    end(&sides);
}

/* --- a session that is to end --- */

/* Nothing is owed to the source any more. */
static void await_known(VmfSession *session)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    bool known = false;

    while (!known) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->lock);
        known = session->handover.known;
        g_mutex_unlock(&session->lock);
        g_usleep(1000);
    }
}

/* Its control thread reads and sends no more. */
static void await_over(VmfSession *session)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    bool over = false;

    while (!over) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->lock);
        over = session->control_over;
        g_mutex_unlock(&session->lock);
        g_usleep(1000);
    }
}

/* Its peer lives, and takes nothing more: that holds nobody. */
static void free__of_a_session_that_cannot_send_ends(void **state)
{
    Sides sides;

    (void)state;
    begin(&sides, LONG);
    complete_both(&sides);
    join_both(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    await_known(sides.pair.destination);
    stepper_clog(D);
    session_post(sides.pair.destination, MESSAGE_SETTLED, 0, 0, NULL, 0);
    vmf_session_free(g_steal_pointer(&sides.pair.destination));
    /* It is not the source's time-out for a silent peer that ended it: the source sees it close. */
    await_over(sides.pair.source);
    assert_true(sides.pair.source->control_ended);
    stepper_clog(0);
    pair_clear(&sides.pair);
}

/* Its peer never stops talking: a cancel is heard all the same, and the peer is told. */
static void cancel__is_heard_in_a_flood_of_messages(void **state)
{
    g_autoptr(GError) error = NULL;
    Sides sides;

    (void)state;
    begin(&sides, LONG);
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
        cmocka_unit_test(cancel__between_look_and_go_leaves_one_owner),
        cmocka_unit_test(outcome__that_is_unknown_stays_so),
        cmocka_unit_test(outcome__is_unknown_when_asking_is_cancelled),
        cmocka_unit_test(outcome__is_known_when_waiting_is_cancelled),
        cmocka_unit_test(loss__that_one_side_notices_late_leaves_both_knowing),
        cmocka_unit_test(error__that_is_lost_is_told_again),
        cmocka_unit_test(cancel__of_the_source_behind_go_spoils_nothing),
        cmocka_unit_test(cancel__of_the_destination_behind_go_spoils_nothing),
        cmocka_unit_test(success__reader_of_the_return_path_wakes),
        cmocka_unit_test(success__reader_wakes_by_the_peers_end),
        cmocka_unit_test(success__complete_again_says_yes),
        cmocka_unit_test(no_reason__of_the_control_connection),
        cmocka_unit_test(no_reason__of_revoke),
        cmocka_unit_test(no_reason__of_the_caller),
        cmocka_unit_test(no_reason__of_a_channel),
        cmocka_unit_test(no_reason__of_accept),
        cmocka_unit_test(code__of_another_domain_does_not_travel),
        cmocka_unit_test(uuid__cannot_be_computed),
        cmocka_unit_test(set_up__of_a_peer_that_only_lives_ends),
        cmocka_unit_test(source__that_nobody_will_accept_is_told),
        cmocka_unit_test(heartbeat__that_cannot_be_sent_does_not_spin),
        cmocka_unit_test(questions__without_end_cost_no_memory_without_end),
        cmocka_unit_test(free__of_a_session_that_cannot_send_ends),
        cmocka_unit_test(cancel__is_heard_in_a_flood_of_messages),
    };

    alarm(300); /* a wait that does not end is a fault */
    g_setenv("VMFERRY_TEST_URI", "step:127.0.0.1:0", true);
    assert_true(stepper_wrap("tcp", NULL));
    cmocka_set_test_filter(g_getenv("VMFERRY_TEST_FILTER")); /* NULL: all */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
