/* SPDX-License-Identifier: BSD-2-Clause */
/* test-handover-faults.c -- faults that once gave two owners, or lost an outcome */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/message.h"
#include "session/session-state.h"
#include "sides.h"
#include "support/test-filter.h"

/* --- two owners --- */

/*
 * The source's control thread has checked that the session lives, and is about to send GO. A cancel
 * at that moment must not give the VM to both sides.
 */
static void cancel__between_look_and_go_leaves_one_owner(void **state)
{
    const Step step = {S, STEP_NEXT_LOOK, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    sides_complete_to(&sides, LONG, &step);
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread); /* it answers before GO could be sent */
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_CANCELLED);
    stepper_go_on();
    g_thread_join(sides.destination.thread);
    assert_false(sides.destination.ok);
    sides_end(&sides);
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
    sides_complete_to(&sides, ",channels=1,timeout=1s,connect-timeout=20s", &step);
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    sides_join(&sides);
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_false(vmf_session_complete(sides.source.session, &again));
    assert_int_equal(again->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_false(vmf_session_check(sides.source.session, &check));
    assert_int_equal(check->code, VMF_ERROR_UNKNOWN_OUTCOME);
    vmf_session_cancel(sides.source.session);
    assert_false(vmf_session_check(sides.source.session, &cancelled));
    assert_int_equal(cancelled->code, VMF_ERROR_UNKNOWN_OUTCOME);
    sides_end(&sides);
}

/*
 * A source that gives up asking knows no more than before. "cancelled" would mean that it owns the
 * VM.
 */
static void outcome__is_unknown_when_asking_is_cancelled(void **state)
{
    const Step step = {S, STEP_AFTER_SEND, MESSAGE_GO};
    g_autoptr(GError) check = NULL;
    Sides sides;

    (void)state;
    sides_complete_to(&sides, LONG, &step);
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    sides_await_state(sides.source.session, HANDOVER_ASKS);
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread);
    assert_false(sides.source.ok);
    assert_int_equal(sides.source.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_int_equal(vmf_session_get_owner(sides.source.session), VMF_OWNER_UNKNOWN);
    assert_false(vmf_session_check(sides.source.session, &check));
    assert_int_equal(check->code, VMF_ERROR_UNKNOWN_OUTCOME);
    vmf_session_cancel(sides.destination.session);
    g_thread_join(sides.destination.thread);
    sides_end(&sides);
}

/* A destination that gives up waiting for the source never runs the VM, and says so. */
static void outcome__is_known_when_waiting_is_cancelled(void **state)
{
    const Step step = {D, STEP_AFTER_SEND, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    sides_complete_to(&sides, LONG, &step);
    stepper_allow_connecting(false);
    stepper_cut();
    stepper_go_on();
    sides_await_state(sides.destination.session, HANDOVER_WAITS);
    vmf_session_cancel(sides.destination.session);
    g_thread_join(sides.destination.thread);
    assert_false(sides.destination.ok);
    assert_int_equal(sides.destination.error->code, VMF_ERROR_CANCELLED);
    assert_int_equal(vmf_session_get_owner(sides.destination.session), VMF_OWNER_OTHER_SIDE);
    vmf_session_cancel(sides.source.session);
    g_thread_join(sides.source.thread);
    assert_false(sides.source.ok);
    sides_end(&sides);
}

/*
 * The destination notices a loss at once, the source only by silence. When it asks then, it gets an
 * answer.
 */
static void loss__that_one_side_notices_late_leaves_both_knowing(void **state)
{
    const Step step = {S, STEP_BEFORE_SEND, MESSAGE_GO};
    Sides sides;

    (void)state;
    sides_complete_to(&sides, ",channels=1,timeout=3s,connect-timeout=20s", &step);
    stepper_allow_connecting(false);
    stepper_cut_off(D);
    stepper_go_on();
    sides_await_state(sides.source.session, HANDOVER_ASKS);
    g_usleep(G_USEC_PER_SEC); /* the first attempts fail */
    stepper_allow_connecting(true);
    sides_join(&sides);
    sides_expect_success(&sides);
    sides_end(&sides);
}

/* The source's ERROR is lost with the link, so it is told over another connection. */
static void error__that_is_lost_is_told_again(void **state)
{
    const Step step = {S, STEP_RECEIVED, MESSAGE_LOADED};
    Sides sides;

    (void)state;
    sides_complete_to(&sides, ",channels=1,timeout=3s,connect-timeout=20s", &step);
    stepper_silence();
    vmf_session_fail(sides.source.session,
                     g_error_new(VMF_ERROR, VMF_ERROR_IO, "the disk of the test is full"));
    stepper_go_on();
    sides_join(&sides);
    assert_int_equal(vmf_session_get_owner(sides.source.session), VMF_OWNER_THIS_SIDE);
    assert_int_equal(vmf_session_get_owner(sides.destination.session), VMF_OWNER_OTHER_SIDE);
    sides_end(&sides);
}

/* --- a cancel after GO --- */

static void cancel_at(const Step *step, bool source)
{
    Sides sides;

    sides_complete_to(&sides, LONG, step);
    vmf_session_cancel(source ? sides.source.session : sides.destination.session);
    stepper_go_on();
    sides_join(&sides);
    sides_expect_success(&sides);
    sides_end(&sides);
}

static void cancel__of_the_source_after_go_changes_nothing(void **state)
{
    const Step before = {D, STEP_RECEIVED, MESSAGE_GO}, after = {S, STEP_RECEIVED, MESSAGE_GO_SEEN};

    (void)state;
    cancel_at(&before, true);
    cancel_at(&after, true);
}

static void cancel__of_the_destination_after_go_changes_nothing(void **state)
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

/* The reader of the return path of a source that has given away its VM. */
static void reader_wakes_by(void (*event)(Sides *sides))
{
    g_autoptr(VmfFile) back = NULL;
    GThread *reader;
    Sides sides;

    sides_begin(&sides, LONG);
    back = vmf_file_get_return_path(vmf_session_get_file(sides.pair.source), NULL);
    reader = g_thread_new("reader", read_back, back);
    sides_complete(&sides);
    sides_join(&sides);
    assert_true(sides.source.ok && sides.destination.ok);
    event(&sides);
    g_thread_join(reader); /* the alarm ends a wait for ever */
    assert_true(vmf_session_complete(sides.pair.source, NULL));
    assert_true(vmf_session_check(sides.pair.source, NULL));
    g_clear_pointer(&back, vmf_file_free);
    sides_end(&sides);
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

/* Whether there is no room for more of the peer's stream. */
static bool stream_is_full(VmfSession *s)
{
    bool some;

    g_mutex_lock(&s->core.lock);
    some = stream_room(&s->streams.in_ring) == 0;
    g_mutex_unlock(&s->core.lock);
    return some;
}

/* More bytes come than there is room for, as from stock QEMU whose return path nobody reads. */
static void *let_arrive(void *opaque)
{
    VmfConn *conn = ((VmfSession *)opaque)->conn;
    const size_t size = 8u << 20;
    g_autofree uint8_t *data = g_malloc0(size);
    bool hook;

    return GINT_TO_POINTER(conn->host->stream_arrived(conn, data, size, &hook, NULL));
}

static void unread_return_path_ends_by(void (*event)(Sides *sides))
{
    GThread *channel;
    Sides sides;

    sides_begin(&sides, LONG);
    sides_complete(&sides);
    sides_join(&sides);
    assert_true(sides.source.ok);
    channel = g_thread_new("channel", let_arrive, sides.pair.source);
    while (!stream_is_full(sides.pair.source)) {
        g_usleep(1000);
    }
    event(&sides);
    g_thread_join(channel); /* the alarm ends a wait for ever */
    assert_int_equal(vmf_session_get_owner(sides.pair.source), VMF_OWNER_OTHER_SIDE);
    sides_end(&sides);
}

static void success__unread_return_path_of_stock_qemu_ends(void **state)
{
    (void)state;
    unread_return_path_ends_by(cancel_it);
    unread_return_path_ends_by(shut_it_down);
    stepper_reset();
}

static void reader_wakes_by_the_peers_end(void)
{
    g_autoptr(VmfFile) back = NULL;
    GThread *reader;
    Sides sides;

    sides_begin(&sides, LONG);
    back = vmf_file_get_return_path(vmf_session_get_file(sides.pair.source), NULL);
    reader = g_thread_new("reader", read_back, back);
    sides_complete(&sides);
    sides_join(&sides);
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
    sides_begin(&sides, LONG);
    sides_complete(&sides);
    sides_join(&sides);
    assert_true(vmf_session_complete(sides.pair.source, NULL));
    assert_true(vmf_session_complete(sides.pair.destination, NULL));
    sides_end(&sides);
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
        cmocka_unit_test(cancel__of_the_source_after_go_changes_nothing),
        cmocka_unit_test(cancel__of_the_destination_after_go_changes_nothing),
        cmocka_unit_test(success__reader_of_the_return_path_wakes),
        cmocka_unit_test(success__unread_return_path_of_stock_qemu_ends),
        cmocka_unit_test(success__reader_wakes_by_the_peers_end),
        cmocka_unit_test(success__complete_again_says_yes),
    };

    sides_prepare();
    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
