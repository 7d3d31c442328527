/* SPDX-License-Identifier: BSD-2-Clause */
/* stepper.h -- a transport that wraps another one, to stop and cut its control connection */

#ifndef VMF_TESTS_STEPPER_H
#define VMF_TESTS_STEPPER_H

#include <vmferry/vmferry.h>
#include <vmferry/plugin/transport.h>

/* A moment at which a control thread stops until it is released. */
typedef enum StepWhen {
    STEP_BEFORE_SEND, /* the transport is about to get the message */
    STEP_AFTER_SEND,  /* the transport has got the message */
    STEP_RECEIVED,    /* the message has come, and is not handled yet */
    STEP_NEXT_LOOK    /* the message was handled, and the thread looks for the next one */
} StepWhen;

typedef struct Step {
    VmfRole role;
    StepWhen when;
    unsigned message; /* its type */
} Step;

/*
 * Registers the transport "step", which wraps that of `scheme'. Call it once, before everything
 * else.
 */
bool stepper_wrap(const char *scheme, GError **error);
/* Resets everything. The next session is the one that is stopped and cut. */
void stepper_reset(void);
/* Stops the thread that comes to that step. One at a time. */
void stepper_stop_at(const Step *step);
/* Waits until a thread has stopped there. Returns false after twenty seconds. */
bool stepper_await(void);
void stepper_go_on(void);

/* Breaks the session's control connection, with all that is under way. No new one can be made. */
void stepper_cut(void);
/*
 * stepper_cut() that only that side notices. For the other side the connection is silent, and takes
 * everything.
 */
void stepper_cut_off(VmfRole role);
/* Makes the session's control connection silent. It takes everything. */
void stepper_silence(void);
/* Whether new connections can be made. They can by default. */
void stepper_allow_connecting(bool allow);

/* Throws away control messages of that type from that side. */
void stepper_swallow(VmfRole role, unsigned message);
/* Makes the transport of that side take no control message any more. */
void stepper_clog(VmfRole role);
/* Gives that side's transport endless heartbeats of the peer, and waits until they are noticed. */
void stepper_flood(VmfRole role);
/* How often that side's control thread has waited. */
unsigned stepper_waits(VmfRole role);
/* Makes that call fail once, without an error. */
typedef enum StepCall { STEP_SERVE = 1, STEP_CONTROL_WAIT, STEP_ACCEPT, STEP_REVOKE } StepCall;
void stepper_fail_silently(StepCall call);

#endif
