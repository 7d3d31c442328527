/* SPDX-License-Identifier: BSD-2-Clause */
/* sides.h -- both sides of a hand-over over the stepping transport, for the tests of its faults */

#ifndef VMF_TESTS_SIDES_H
#define VMF_TESTS_SIDES_H

#include "session/handover.h"
#include "support/pair.h"
#include "stepper.h"

#define S VMF_ROLE_SOURCE
#define D VMF_ROLE_DESTINATION
/* Options of sessions in which no time-out counts. */
#define LONG ",channels=1,timeout=20s,connect-timeout=20s"

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

/* Prepares the stepping transport. Call it once, before everything else. */
void sides_prepare(void);
/* Resets the stepping transport, and connects a pair over it. */
void sides_begin(Sides *sides, const char *options);
/* Calls vmf_session_complete() on both sides, each in a thread. */
void sides_complete(Sides *sides);
/* Connects, completes on both sides, and returns when that step is reached and waits. */
void sides_complete_to(Sides *sides, const char *options, const Step *step);
/* Fails the test, with both reasons, unless both calls returned true. */
void sides_expect_success(const Sides *sides);
/* Waits until both calls have returned. */
void sides_join(Sides *sides);
/* Cancels what still runs, and frees. */
void sides_end(Sides *sides);
/* Waits until a session's hand-over is in that state; a minute at most. */
void sides_await_state(VmfSession *session, HandoverState wanted);

#endif
