/* SPDX-License-Identifier: BSD-2-Clause */
/* test-handover.c -- every event at every step of a hand-over, on real sessions */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "session/handover.h"
#include "base/message.h"
#include "support/pair.h"
#include "stepper.h"
#include "support/test-filter.h"

#define RAM_BYTES (256u * 1024)

/* --- two sides that complete --- */

typedef struct Side {
    VmfSession *session;
    GThread *thread;
    bool owner_or_gave; /* what complete() returned */
    GError *error;
} Side;

typedef struct Hand {
    Pair pair;
    Side source, destination;
} Hand;

static void *complete_main(void *opaque)
{
    Side *side = opaque;

    side->owner_or_gave = vmf_session_complete(side->session, &side->error);
    return NULL;
}

static void hand_begin(Hand *hand, const char *options)
{
    stepper_reset();
    memset(hand, 0, sizeof(*hand));
    pair_init(&hand->pair, RAM_BYTES, true, options);
    pair_connect(&hand->pair);
    hand->source.session = hand->pair.source;
    hand->destination.session = hand->pair.destination;
}

static void hand_complete(Hand *hand)
{
    hand->destination.thread = g_thread_new("destination", complete_main, &hand->destination);
    hand->source.thread = g_thread_new("source", complete_main, &hand->source);
}

static void hand_join(Hand *hand)
{
    g_thread_join(hand->source.thread);
    g_thread_join(hand->destination.thread);
}

static void *free_main(void *opaque)
{
    vmf_session_free(opaque);
    return NULL;
}

static void hand_end(Hand *hand)
{
    /* Both are freed at the same time, because each may wait for the other to learn the outcome. */
    GThread *thread = g_thread_new("free", free_main, g_steal_pointer(&hand->pair.source));

    vmf_session_free(g_steal_pointer(&hand->pair.destination));
    g_thread_join(thread);
    pair_clear(&hand->pair);
    g_clear_error(&hand->source.error);
    g_clear_error(&hand->destination.error);
}

/* --- what must hold --- */

static const char *owner_name(VmfOwner owner)
{
    return owner == VMF_OWNER_THIS_SIDE    ? "this side"
           : owner == VMF_OWNER_OTHER_SIDE ? "the other side"
                                           : "unknown";
}

/* Asked again, in every way, a side says what it said first. */
static void says_the_same(const Side *side, const char *what)
{
    g_autoptr(GError) again = NULL;
    g_autoptr(GError) check = NULL;
    bool ok = vmf_session_complete(side->session, &again);

    if (ok != side->owner_or_gave || vmf_session_check(side->session, &check) != ok ||
        (!ok && (again->code != side->error->code || check->code != side->error->code))) {
        fail_msg("%s: first %s, then %s and %s", what, side->error ? side->error->message : "true",
                 again ? again->message : "true", check ? check->message : "true");
    }
}

static void holds(Hand *hand, bool known, const char *what)
{
    const VmfOwner source = vmf_session_get_owner(hand->source.session);
    const VmfOwner destination = vmf_session_get_owner(hand->destination.session);

    if ((source == VMF_OWNER_THIS_SIDE && destination == VMF_OWNER_THIS_SIDE) ||
        (source == VMF_OWNER_OTHER_SIDE && destination != VMF_OWNER_THIS_SIDE) ||
        hand->destination.owner_or_gave != (destination == VMF_OWNER_THIS_SIDE) ||
        hand->source.owner_or_gave != (source == VMF_OWNER_OTHER_SIDE) ||
        (known && (source == VMF_OWNER_UNKNOWN || destination == VMF_OWNER_UNKNOWN))) {
        fail_msg("%s: the source says %s (%s), the destination %s (%s)", what, owner_name(source),
                 hand->source.error ? hand->source.error->message : "true", owner_name(destination),
                 hand->destination.error ? hand->destination.error->message : "true");
    }
    if (source == VMF_OWNER_UNKNOWN) {
        assert_int_equal(hand->source.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    }
    if (destination == VMF_OWNER_UNKNOWN) {
        assert_int_equal(hand->destination.error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    }
    says_the_same(&hand->source, what);
    says_the_same(&hand->destination, what);
}

/* --- every step --- */

#define S VMF_ROLE_SOURCE
#define D VMF_ROLE_DESTINATION

static const struct {
    const char *name;
    Step step;
    bool go_is_out; /* GO was sent, and cannot be taken back */
    bool go_is_here;
    bool moves_on; /* the other side goes on */
} steps[] = {
    {"the stream has ended", {D, STEP_RECEIVED, MESSAGE_STREAM_END}, false, false, false},
    {"LOADED is about to go", {D, STEP_BEFORE_SEND, MESSAGE_LOADED}, false, false, false},
    {"LOADED is out", {D, STEP_AFTER_SEND, MESSAGE_LOADED}, false, false, true},
    {"LOADED has come", {S, STEP_RECEIVED, MESSAGE_LOADED}, false, false, false},
    {"GO is due", {S, STEP_NEXT_LOOK, MESSAGE_LOADED}, false, false, false},
    {"GO is about to go", {S, STEP_BEFORE_SEND, MESSAGE_GO}, true, false, false},
    {"GO is out", {S, STEP_AFTER_SEND, MESSAGE_GO}, true, false, true},
    {"GO has come", {D, STEP_RECEIVED, MESSAGE_GO}, true, false, false},
    {"GO was heard", {D, STEP_NEXT_LOOK, MESSAGE_GO}, true, true, false},
    {"GO_SEEN is about to go", {D, STEP_BEFORE_SEND, MESSAGE_GO_SEEN}, true, true, false},
    {"GO_SEEN is out", {D, STEP_AFTER_SEND, MESSAGE_GO_SEEN}, true, true, false},
    {"GO_SEEN has come", {S, STEP_RECEIVED, MESSAGE_GO_SEEN}, true, true, false},
    {"GO_SEEN was heard", {S, STEP_NEXT_LOOK, MESSAGE_GO_SEEN}, true, true, false},
    {"BYE is about to go", {S, STEP_BEFORE_SEND, MESSAGE_BYE}, true, true, false},
    {"BYE is out", {S, STEP_AFTER_SEND, MESSAGE_BYE}, true, true, false},
    {"BYE has come", {D, STEP_RECEIVED, MESSAGE_BYE}, true, true, false},
};

typedef void (*Event)(Hand *hand);

/* `known': both sides must know the outcome afterwards. */
static void at_step(unsigned i, const char *name, Event event, bool known, const char *options,
                    void (*also)(const Hand *hand, unsigned step))
{
    g_autofree char *what = g_strdup_printf("%s when %s", name, steps[i].name);
    Hand hand;

    hand_begin(&hand, options);
    stepper_stop_at(&steps[i].step);
    hand_complete(&hand);
    if (!stepper_await()) {
        fail_msg("%s: never got there", what);
    }
    event(&hand);
    stepper_go_on();
    hand_join(&hand);
    holds(&hand, known, what);
    if (also) {
        also(&hand, i);
    }
    hand_end(&hand);
}

static void at_every_step(const char *name, Event event, bool known, const char *options,
                          void (*also)(const Hand *hand, unsigned step))
{
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        at_step(i, name, event, known, options, also);
    }
}

static void nothing(Hand *hand)
{
    (void)hand;
}

static void cancel_source(Hand *hand)
{
    vmf_session_cancel(hand->source.session);
}

static void cancel_destination(Hand *hand)
{
    vmf_session_cancel(hand->destination.session);
}

static void fail_source(Hand *hand)
{
    vmf_session_fail(hand->source.session, g_error_new(VMF_ERROR, VMF_ERROR_IO, "a fault"));
}

static void fail_destination(Hand *hand)
{
    vmf_session_fail(hand->destination.session, g_error_new(VMF_ERROR, VMF_ERROR_IO, "a fault"));
}

static void shut_both_down(Hand *hand)
{
    vmf_file_shut_down(vmf_session_get_file(hand->source.session));
    vmf_file_shut_down(vmf_session_get_file(hand->destination.session));
}

static void cut(Hand *hand)
{
    (void)hand;
    stepper_cut();
}

static void cut_for_good(Hand *hand)
{
    (void)hand;
    stepper_allow_connecting(false);
    stepper_cut();
}

static void silence(Hand *hand)
{
    (void)hand;
    stepper_silence();
}

static void cut_and_cancel(Hand *hand)
{
    stepper_cut();
    vmf_session_cancel(hand->source.session);
    vmf_session_cancel(hand->destination.session);
}

/* Between GO and its answer no event of the two sides changes anything. */
static void succeeds(const Hand *hand, unsigned step)
{
    if (!hand->source.owner_or_gave || !hand->destination.owner_or_gave) {
        fail_msg("%s: the source says %s, the destination %s", steps[step].name,
                 hand->source.error ? hand->source.error->message : "true",
                 hand->destination.error ? hand->destination.error->message : "true");
    }
}

static void source_keeps(const Hand *hand, unsigned step)
{
    if (vmf_session_get_owner(hand->source.session) != VMF_OWNER_THIS_SIDE) {
        fail_msg("%s: the source has lost the VM", steps[step].name);
    }
}

static void succeeds_once_go_is_out(const Hand *hand, unsigned step)
{
    if (steps[step].go_is_out) {
        succeeds(hand, step);
    } else if (!steps[step].moves_on) {
        source_keeps(hand, step);
    }
}

static void succeeds_once_go_is_here(const Hand *hand, unsigned step)
{
    if (steps[step].go_is_here) {
        succeeds(hand, step);
    } else if (!steps[step].moves_on) { /* the destination refuses, and the source gets the VM back,
                                           even after GO */
        source_keeps(hand, step);
    }
}

#define LONG ",channels=1,timeout=20s,connect-timeout=20s"
#define SHORT ",channels=1,timeout=500ms,connect-timeout=20s"

static void stop__at_every_step_changes_nothing(void **state)
{
    (void)state;
    at_every_step("nothing happens", nothing, true, LONG, succeeds);
}

static void cancel__of_the_source_at_every_step(void **state)
{
    (void)state;
    at_every_step("the source is cancelled", cancel_source, true, LONG, succeeds_once_go_is_out);
}

static void cancel__of_the_destination_at_every_step(void **state)
{
    (void)state;
    at_every_step("the destination is cancelled", cancel_destination, true, LONG,
                  succeeds_once_go_is_here);
}

static void fault__of_the_source_at_every_step(void **state)
{
    (void)state;
    at_every_step("the source fails", fail_source, true, LONG, succeeds_once_go_is_out);
}

static void fault__of_the_destination_at_every_step(void **state)
{
    (void)state;
    at_every_step("the destination fails", fail_destination, true, LONG, succeeds_once_go_is_here);
}

static void shut_down__of_both_at_every_step(void **state)
{
    (void)state;
    at_every_step("both files are shut down", shut_both_down, true, LONG, NULL);
}

/* Both sides learn the outcome over another connection: none stays unknown. */
static void loss__at_every_step_leaves_both_sides_knowing(void **state)
{
    (void)state;
    at_every_step("the connection is lost", cut, true, ",channels=1,timeout=5s,connect-timeout=20s",
                  succeeds_once_go_is_out);
}

/* The connection ends in silence, so only time tells. */
static void loss__by_silence_leaves_both_sides_knowing(void **state)
{
    (void)state;
    at_every_step("the peer falls silent", silence, true, ",channels=1,timeout=1500ms", NULL);
}

typedef struct Leaving {
    Side *side;
    VmfSession **session; /* the pair's session */
    VmfOwner owner;       /* what it said last */
} Leaving;

/* Does what a program does that gives up: it frees its session as soon as it may. */
static void *leave_main(void *opaque)
{
    Leaving *leaving = opaque;

    vmf_session_cancel(leaving->side->session);
    g_thread_join(leaving->side->thread);
    leaving->owner = vmf_session_get_owner(leaving->side->session);
    vmf_session_free(g_steal_pointer(leaving->session));
    return NULL;
}

/* One side is stopped at a step, and the other one leaves. */
static void leave_at(unsigned i)
{
    const bool source_leaves = steps[i].step.role == D;
    Leaving leaving;
    Hand hand;
    Side *stays;
    VmfOwner owner;
    GThread *thread;

    hand_begin(&hand, ",channels=1,timeout=5s,connect-timeout=20s");
    leaving.side = source_leaves ? &hand.source : &hand.destination;
    leaving.session = source_leaves ? &hand.pair.source : &hand.pair.destination;
    stays = source_leaves ? &hand.destination : &hand.source;
    stepper_stop_at(&steps[i].step);
    hand_complete(&hand);
    if (!stepper_await()) {
        fail_msg("the other side leaves when %s: never got there", steps[i].name);
    }
    thread = g_thread_new("leave", leave_main, &leaving);
    stepper_go_on();
    g_thread_join(stays->thread);
    owner = vmf_session_get_owner(stays->session);
    g_thread_join(thread);
    if ((owner == VMF_OWNER_THIS_SIDE) == (leaving.owner == VMF_OWNER_THIS_SIDE)) {
        fail_msg("the other side leaves when %s: it said %s, and this one says %s", steps[i].name,
                 owner_name(leaving.owner), owner_name(owner));
    }
    assert_int_equal(owner, vmf_session_get_owner(stays->session));
    hand_end(&hand);
}

static void free__at_every_step_leaves_one_owner(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        leave_at(i);
    }
}

static void loss__for_good_at_every_step_leaves_no_two_owners(void **state)
{
    (void)state;
    at_every_step("the link is lost for good", cut_for_good, false, SHORT, NULL);
}

static void loss__and_cancel_at_every_step(void **state)
{
    (void)state;
    at_every_step("lost and cancelled", cut_and_cancel, false, SHORT, NULL);
}

/* --- the table itself --- */

/* A final state stays, whatever event comes. */
static void table__final_states_are_final(void **state)
{
    (void)state;
    for (unsigned s = 0; s < HANDOVER_STATES; s++) {
        for (unsigned e = 0; e < HANDOVER_EVENTS; e++) {
            Handover handover = {.state = (HandoverState)s};
            const VmfOwner before = handover_owner(&handover);
            const bool over = handover_over(&handover);

            handover_event(&handover, (HandoverEvent)e);
            if (over && before != VMF_OWNER_UNKNOWN) {
                assert_int_equal(handover_owner(&handover), before);
                assert_true(handover_over(&handover));
            }
            /* No side gets the VM by a time-out, a loss, a fault or a cancel. */
            if (e == HANDOVER_TIME_UP || e == HANDOVER_LOST || e == HANDOVER_FAULT ||
                e == HANDOVER_CANCEL) {
                assert_true(handover.state != HANDOVER_OWNS || s == HANDOVER_OWNS);
                assert_true(before != VMF_OWNER_UNKNOWN ||
                            handover_owner(&handover) != VMF_OWNER_THIS_SIDE);
            }
        }
    }
}

/* Stock QEMU runs a VM that it has as a whole, even if the source does not know that. */
static void table__last_bytes_to_stock_qemu_leave_it_open(void **state)
{
    static const HandoverEvent events[] = {HANDOVER_CANCEL, HANDOVER_FAULT, HANDOVER_LOST};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        Handover handover;

        handover_init(&handover, true);
        assert_int_equal(handover_owner(&handover), VMF_OWNER_THIS_SIDE);
        assert_true(handover_event(&handover, HANDOVER_SUBMITS));
        assert_true(handover_event(&handover, events[i]));
        assert_true(handover_over(&handover));
        assert_int_equal(handover_owner(&handover), VMF_OWNER_UNKNOWN);
    }
}

/* The events of a side lead only to states of that side. */
static void table__keeps_the_sides_apart(void **state)
{
    (void)state;
    for (unsigned s = 0; s < HANDOVER_STATES; s++) {
        for (unsigned e = 0; e < HANDOVER_EVENTS; e++) {
            Handover handover = {.state = (HandoverState)s};

            handover_event(&handover, (HandoverEvent)e);
            assert_int_equal(handover.state >= HANDOVER_LOADS, s >= HANDOVER_LOADS);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table__final_states_are_final),
        cmocka_unit_test(table__last_bytes_to_stock_qemu_leave_it_open),
        cmocka_unit_test(table__keeps_the_sides_apart),
        cmocka_unit_test(stop__at_every_step_changes_nothing),
        cmocka_unit_test(cancel__of_the_source_at_every_step),
        cmocka_unit_test(cancel__of_the_destination_at_every_step),
        cmocka_unit_test(fault__of_the_source_at_every_step),
        cmocka_unit_test(fault__of_the_destination_at_every_step),
        cmocka_unit_test(shut_down__of_both_at_every_step),
        cmocka_unit_test(free__at_every_step_leaves_one_owner),
        cmocka_unit_test(loss__at_every_step_leaves_both_sides_knowing),
        cmocka_unit_test(loss__by_silence_leaves_both_sides_knowing),
        cmocka_unit_test(loss__for_good_at_every_step_leaves_no_two_owners),
        cmocka_unit_test(loss__and_cancel_at_every_step),
    };

    alarm(600); /* a wait that does not end is a fault */
    g_setenv("VMFERRY_TEST_URI", "step:127.0.0.1:0", true);
    assert_true(stepper_wrap("tcp", NULL));
    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
