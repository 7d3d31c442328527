/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.h -- who owns the VM: the states of a hand-over, and what moves it from one to another
 */

#ifndef VMF_HANDOVER_H
#define VMF_HANDOVER_H

#include <stdbool.h>
#include <vmferry/session.h>

/*
 * Pure: no lock, no thread, no time. The session calls handover_event() under its lock for
 * everything that happens, and does what the result says. docs/handover.md has the table,
 * tests/model/handover.pml the same for spin.
 */
typedef enum HandoverState {
    /* The source. */
    HANDOVER_KEEPS,     /* nothing is offered yet */
    HANDOVER_AWAITED,   /* ... but the destination has said LOADED */
    HANDOVER_OFFERS,    /* everything was sent; LOADED is awaited */
    HANDOVER_GIVES,     /* LOADED is here; GO goes next */
    HANDOVER_IN_DOUBT,  /* GO is out, GO_SEEN is awaited */
    HANDOVER_ASKS,      /* the connection was lost with GO out: it asks over another one */
    HANDOVER_GAVE,      /* over: the destination owns the VM */
    HANDOVER_KEPT,      /* over: the source owns the VM, and no GO of its counts */
    HANDOVER_LEFT_OPEN, /* over: the source does not know */
    HANDOVER_SETTLES,   /* the last bytes go to a destination without a hand-over: it may run */
    /* The destination. */
    HANDOVER_LOADS,  /* LOADED is not said */
    HANDOVER_LOADED, /* LOADED is said; GO is awaited */
    HANDOVER_WAITS,  /* the connection was lost; the source's word is awaited on another one */
    HANDOVER_OWNS,   /* over: the destination owns the VM */
    HANDOVER_DENIED, /* over: it never will */
    HANDOVER_UNSURE, /* over: the destination does not know */
    HANDOVER_STATES
} HandoverState;

typedef enum HandoverEvent {
    HANDOVER_COMPLETE,   /* vmf_session_complete(): this side has done its part */
    HANDOVER_FOREIGN,    /* the same where the peer has no hand-over: all has arrived */
    HANDOVER_SUBMITS,    /* ... : the last bytes are handed out */
    HANDOVER_GOT_LOADED, /* messages */
    HANDOVER_GOT_GO,
    HANDOVER_GOT_GO_SEEN,
    HANDOVER_GOT_BYE,
    HANDOVER_GOT_ERROR,   /* the peer has failed, and says so: it never owns, or always will */
    HANDOVER_GO_LEAVES,   /* the control thread takes GO to send it: it cannot be undone */
    HANDOVER_CANCEL,      /* this side wants no more */
    HANDOVER_FAULT,       /* this side cannot go on */
    HANDOVER_LOST,        /* the connection is no more */
    HANDOVER_TOLD_GO,     /* destination, over another connection: GO was sent */
    HANDOVER_TOLD_KEPT,   /* ... : it was not, and never will be */
    HANDOVER_TOLD_MINE,   /* source, over another connection: the destination owns */
    HANDOVER_TOLD_DENIED, /* ... : it does not, and never will */
    HANDOVER_TOLD_UNSURE, /* ... : it does not know either, or has no such session */
    HANDOVER_TIME_UP,     /* the time for asking or waiting is over */
    HANDOVER_EVENTS
} HandoverEvent;

/* What the destination says of its state. The numbers travel. */
typedef enum HandoverAnswer {
    HANDOVER_ANSWER_MINE = 1,
    HANDOVER_ANSWER_DENIED = 2,
    HANDOVER_ANSWER_UNSURE = 3,
} HandoverAnswer;

/* Bits of Handover.owes: messages that are to be sent. */
#define HANDOVER_OWES_LOADED 1u
#define HANDOVER_OWES_GO 2u
#define HANDOVER_OWES_GO_SEEN 4u
#define HANDOVER_OWES_BYE 8u

typedef struct Handover {
    HandoverState state;
    unsigned owes;
    bool known;       /* destination: the source knows the outcome */
    bool said_loaded; /* destination: or may have */
    bool asked;       /* source: the answer came over another connection */
} Handover;

void handover_init(Handover *handover, bool source);
/* false: this cannot come now; nothing has changed. */
bool handover_event(Handover *handover, HandoverEvent event);
/* The message type that is to be sent next, 0 if none; what it was is owed no more. */
unsigned handover_take(Handover *handover);
/* Whether this side's answer is final, and whether that answer is yes. */
bool handover_over(const Handover *handover);
bool handover_succeeded(const Handover *handover);
/* Whether the connection still has to carry something, although the session has failed. */
bool handover_needs_connection(const Handover *handover);
/* Whether the answer of the peer is due: it is at its control thread only, not at its user. */
bool handover_answer_is_due(const Handover *handover);
VmfOwner handover_owner(const Handover *handover);
HandoverAnswer handover_answer(const Handover *handover);
/* For messages and tests. */
const char *handover_state_name(HandoverState state);

#endif
