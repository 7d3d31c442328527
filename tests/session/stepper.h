/* SPDX-License-Identifier: BSD-2-Clause */
/* stepper.h -- a transport that wraps another one, to stop and cut its control connection */

#ifndef VMF_TESTS_STEPPER_H
#define VMF_TESTS_STEPPER_H

#include <vmferry/vmferry.h>
#include <vmferry/plugin/transport.h>

/* A moment of a control thread: it stops there until it is let go on. */
typedef enum StepWhen {
    STEP_BEFORE_SEND, /* the message is about to be handed to the transport */
    STEP_AFTER_SEND,  /* ... and was */
    STEP_RECEIVED,    /* the message has come, and nothing is done about it yet */
    STEP_NEXT_LOOK    /* it was dealt with, and the thread looks for the next one */
} StepWhen;

typedef struct Step {
    VmfRole role;
    StepWhen when;
    unsigned message; /* its type */
} Step;

/* The wrapping transport, scheme "step", of the one with that scheme. Once, before all else. */
bool stepper_wrap(const char *scheme, GError **error);
/* Forgets all that was set; the next session is the one that is stopped and cut. */
void stepper_reset(void);
/* The thread that comes there stops. One at a time. */
void stepper_stop_at(const Step *step);
/* Waits until it is there; false after twenty seconds. */
bool stepper_await(void);
void stepper_go_on(void);

/* The session's control connection breaks, with all that is on its way; no new one can be made. */
void stepper_cut(void);
/* The same, and only that side notices; for the other one it says nothing, and takes everything. */
void stepper_cut_off(VmfRole role);
/* It says nothing any more, and takes everything. */
void stepper_silence(void);
/* New connections can be made (the default). */
void stepper_allow_connecting(bool allow);

/* Control messages of that type from that side are thrown away. */
void stepper_swallow(VmfRole role, unsigned message);
/* The transport of that side takes no control message any more. */
void stepper_clog(VmfRole role);
/* That side's transport always has another heartbeat of the peer's; waits until that is noticed. */
void stepper_flood(VmfRole role);
/* How often that side's control thread has waited. */
unsigned stepper_waits(VmfRole role);
/* That call fails once, without an error. */
typedef enum StepCall { STEP_SERVE = 1, STEP_CONTROL_WAIT, STEP_ACCEPT, STEP_REVOKE } StepCall;
void stepper_fail_silently(StepCall call);

#endif
