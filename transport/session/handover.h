/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.h -- who owns the VM: the states of a hand-over, and the events that change them */

#ifndef VMF_HANDOVER_H
#define VMF_HANDOVER_H

#include <stdbool.h>
#include <vmferry/session.h>

/*
 * A pure state machine: no lock, no thread, no time. The session calls handover_event() under its
 * lock for everything that happens, and acts on the result. docs/handover.md shows the table;
 * tests/model/handover.pml is the same for spin.
 */
typedef enum HandoverState {
    /* The source. */
    HANDOVER_KEEPS,     /* nothing is offered yet */
    HANDOVER_AWAITED,   /* nothing is offered, but the destination has said LOADED */
    HANDOVER_OFFERS,    /* everything is sent; LOADED is awaited */
    HANDOVER_GIVES,     /* LOADED has come; GO is sent next */
    HANDOVER_IN_DOUBT,  /* GO was sent; GO_SEEN is awaited */
    HANDOVER_ASKS,      /* the connection was lost after GO: the source asks over another one */
    HANDOVER_GAVE,      /* over: the destination owns the VM */
    HANDOVER_KEPT,      /* over: the source owns the VM, and no GO of it counts */
    HANDOVER_LEFT_OPEN, /* over: the source does not know */
    HANDOVER_SETTLES,   /* stock QEMU gets the last bytes: it may run the VM, without a hand-over */
    /* The destination. */
    HANDOVER_LOADS,  /* LOADED is not sent */
    HANDOVER_LOADED, /* LOADED is sent; GO is awaited */
    HANDOVER_WAITS,  /* the connection was lost; the source's word is awaited over another one */
    HANDOVER_OWNS,   /* over: the destination owns the VM */
    HANDOVER_DENIED, /* over: the destination never owns the VM */
    HANDOVER_UNSURE, /* over: the destination does not know */
    HANDOVER_STATES
} HandoverState;

typedef enum HandoverEvent {
    HANDOVER_COMPLETE,   /* vmf_session_complete(): this side has done its part */
    HANDOVER_FOREIGN,    /* stock QEMU has all (source), or has sent all (destination) */
    HANDOVER_SUBMITS,    /* stock QEMU is about to get the last bytes */
    HANDOVER_GOT_LOADED, /* messages */
    HANDOVER_GOT_GO,
    HANDOVER_GOT_GO_SEEN,
    HANDOVER_GOT_BYE,
    HANDOVER_GOT_ERROR, /* the peer has failed, and says so: it never owns the VM, or always will */
    HANDOVER_GO_LEAVES, /* the control thread takes GO to send it, which cannot be undone */
    HANDOVER_CANCEL,    /* this side cancels */
    HANDOVER_FAULT,     /* this side cannot go on */
    HANDOVER_LOST,      /* the connection is lost */
    HANDOVER_TOLD_GO,   /* destination, over another connection: GO was sent */
    HANDOVER_TOLD_KEPT, /* destination, over another connection: GO was never sent, nor will be */
    HANDOVER_TOLD_MINE, /* source, over another connection: the destination owns the VM */
    HANDOVER_TOLD_DENIED, /* source, over another connection: the destination does not own it, and
                             never will */
    HANDOVER_TOLD_UNSURE, /* source, over another connection: the destination does not know, or has
                             no such session */
    HANDOVER_TIME_UP,     /* the time for asking or waiting is over */
    HANDOVER_EVENTS
} HandoverEvent;

/* What the destination says about its state. The numbers travel in ANSWER. */
typedef enum HandoverAnswer {
    HANDOVER_ANSWER_MINE = 1,
    HANDOVER_ANSWER_DENIED = 2,
    HANDOVER_ANSWER_UNSURE = 3,
} HandoverAnswer;

/* Bits of Handover.owes: messages that still have to be sent. */
#define HANDOVER_OWES_LOADED 1u
#define HANDOVER_OWES_GO 2u
#define HANDOVER_OWES_GO_SEEN 4u
#define HANDOVER_OWES_BYE 8u

typedef struct Handover {
    HandoverState state;
    unsigned owes;
    bool known;       /* destination: the source knows the outcome */
    bool said_loaded; /* destination: LOADED was sent, or may have been */
    bool asked;       /* source: the answer came over another connection */
} Handover;

void handover_init(Handover *handover, bool source);
/* false: the event cannot come now, and nothing has changed. */
bool handover_event(Handover *handover, HandoverEvent event);
/* Takes the message that has to be sent next, and returns its type; 0: there is none. */
unsigned handover_take(Handover *handover);
/* Whether this side's answer is final, and whether the hand-over has succeeded. */
bool handover_over(const Handover *handover);
bool handover_succeeded(const Handover *handover);
/*
 * Whether the connection still has to carry a message of the hand-over, although the session has
 * failed.
 */
bool handover_needs_connection(const Handover *handover);
/* Whether only the peer's control thread has to answer now, and not its user. */
bool handover_answer_is_due(const Handover *handover);
VmfOwner handover_owner(const Handover *handover);
HandoverAnswer handover_answer(const Handover *handover);
/* For messages and tests. */
const char *handover_state_name(HandoverState state);

#endif
