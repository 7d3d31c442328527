/* SPDX-License-Identifier: BSD-2-Clause */
/* sides.c -- both sides of a hand-over over the stepping transport, for the tests of its faults */

#include "sides.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "session/session-state.h"

#define RAM_BYTES (256u * 1024)

void sides_prepare(void)
{
    alarm(300); /* a wait that does not end is a fault */
    g_setenv("VMFERRY_TEST_URI", "step:127.0.0.1:0", true);
    assert_true(stepper_wrap("tcp", NULL));
}

static void *complete_main(void *opaque)
{
    Side *side = opaque;

    side->ok = vmf_session_complete(side->session, &side->error);
    return NULL;
}

void sides_begin(Sides *sides, const char *options)
{
    stepper_reset();
    memset(sides, 0, sizeof(*sides));
    pair_init(&sides->pair, RAM_BYTES, true, options);
    pair_connect(&sides->pair);
    sides->source.session = sides->pair.source;
    sides->destination.session = sides->pair.destination;
}

void sides_complete(Sides *sides)
{
    sides->destination.thread = g_thread_new("destination", complete_main, &sides->destination);
    sides->source.thread = g_thread_new("source", complete_main, &sides->source);
}

void sides_join(Sides *sides)
{
    g_thread_join(sides->source.thread);
    g_thread_join(sides->destination.thread);
}

void sides_end(Sides *sides)
{
    vmf_session_cancel(sides->pair.source);
    vmf_session_cancel(sides->pair.destination);
    pair_clear(&sides->pair);
    g_clear_error(&sides->source.error);
    g_clear_error(&sides->destination.error);
}

void sides_await_state(VmfSession *session, HandoverState wanted)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    HandoverState now = HANDOVER_STATES;

    while (now != wanted) {
        assert_true(g_get_monotonic_time() < deadline);
        g_mutex_lock(&session->core.lock);
        now = session->peer.handover.state;
        g_mutex_unlock(&session->core.lock);
        g_usleep(1000);
    }
}

void sides_complete_to(Sides *sides, const char *options, const Step *step)
{
    sides_begin(sides, options);
    stepper_stop_at(step);
    sides_complete(sides);
    assert_true(stepper_await());
}

void sides_expect_success(const Sides *sides)
{
    if (!sides->source.ok || !sides->destination.ok) {
        fail_msg("the source says %s, the destination %s",
                 sides->source.error ? sides->source.error->message : "true",
                 sides->destination.error ? sides->destination.error->message : "true");
    }
}
