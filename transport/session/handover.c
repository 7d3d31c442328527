/* SPDX-License-Identifier: BSD-2-Clause */
/* handover.c -- who owns the VM: one table of states and events */

#include "handover.h"

#include "base/message.h"

/* What an event does in a state. */
typedef enum Effect {
    REFUSED, /* it cannot come here: an error of the peer or of the caller */
    IGNORED,
    BECOMES,
} Effect;

typedef struct Transition {
    Effect effect;
    HandoverState state;
    unsigned owes; /* added */
    bool known;
} Transition;

#define _                                                                                          \
    {                                                                                              \
        .effect = IGNORED                                                                          \
    }
#define NO                                                                                         \
    {                                                                                              \
        .effect = REFUSED                                                                          \
    }
#define TO(next)                                                                                   \
    {                                                                                              \
        .effect = BECOMES, .state = HANDOVER_##next                                                \
    }
#define OWE(next, message)                                                                         \
    {                                                                                              \
        .effect = BECOMES, .state = HANDOVER_##next, .owes = HANDOVER_OWES_##message               \
    }
#define KNOWN(next)                                                                                \
    {                                                                                              \
        .effect = BECOMES, .state = HANDOVER_##next, .known = true                                 \
    }

/*
 * The columns are in the order of the events. What is final stays: KEPT never gives, DENIED never
 * owns, and GAVE and OWNS are not taken back. After GO only the destination's own word (an ERROR or
 * an answer) gives the VM back to the source. It says that only when it never will own the VM.
 */
/* clang-format off */
static const Transition table[HANDOVER_STATES][HANDOVER_EVENTS] = {
    /*                     COMPLETE             FOREIGN   SUBMITS      LOADED          GO                  GO_SEEN         BYE          ERROR          GO_LEAVES     CANCEL         FAULT          LOST           TOLD_GO             TOLD_KEPT      TOLD_MINE  TOLD_DENIED  TOLD_UNSURE    TIME_UP */
    [HANDOVER_KEEPS]     = {TO(OFFERS),          NO,       TO(SETTLES), TO(AWAITED),    NO,                 NO,             NO,          TO(KEPT),      NO,           TO(KEPT),      TO(KEPT),      TO(KEPT),      NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_AWAITED]   = {OWE(GIVES, GO),      NO,       NO,          NO,             NO,                 NO,             NO,          TO(KEPT),      NO,           TO(KEPT),      TO(KEPT),      TO(KEPT),      NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_OFFERS]    = {NO,                  NO,       NO,          OWE(GIVES, GO), NO,                 NO,             NO,          TO(KEPT),      NO,           TO(KEPT),      TO(KEPT),      TO(KEPT),      NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_GIVES]     = {NO,                  NO,       NO,          NO,             NO,                 NO,             NO,          TO(KEPT),      TO(IN_DOUBT), TO(KEPT),      TO(KEPT),      TO(KEPT),      NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_IN_DOUBT]  = {NO,                  NO,       NO,          NO,             NO,                 OWE(GAVE, BYE), NO,          TO(KEPT),      NO,           _,             _,             TO(ASKS),      NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_ASKS]      = {NO,                  NO,       NO,          _,              NO,                 _,              NO,          _,             NO,           TO(LEFT_OPEN), _,             _,             NO,                 NO,            TO(GAVE),  TO(KEPT),    TO(LEFT_OPEN), TO(LEFT_OPEN)},
    [HANDOVER_GAVE]      = {_,                   _,        _,           NO,             NO,                 NO,             NO,          _,             NO,           _,             _,             _,             NO,                 NO,            _,         _,           _,             _},
    [HANDOVER_KEPT]      = {_,                   _,        _,           _,              NO,                 _,              NO,          _,             NO,           _,             _,             _,             NO,                 NO,            _,         _,           _,             _},
    [HANDOVER_LEFT_OPEN] = {_,                   _,        _,           _,              NO,                 _,              NO,          _,             NO,           _,             _,             _,             NO,                 NO,            _,         _,           _,             _},
    [HANDOVER_SETTLES]   = {NO,                  TO(GAVE), NO,          NO,             NO,                 NO,             NO,          TO(KEPT),      NO,           TO(LEFT_OPEN), TO(LEFT_OPEN), TO(LEFT_OPEN), NO,                 NO,            NO,        NO,          NO,            _},
    [HANDOVER_LOADS]     = {OWE(LOADED, LOADED), TO(OWNS), NO,          NO,             NO,                 NO,             NO,          KNOWN(DENIED), NO,           TO(DENIED),    TO(DENIED),    TO(DENIED),    _,                  KNOWN(DENIED), NO,        NO,          NO,            _},
    [HANDOVER_LOADED]    = {NO,                  NO,       NO,          NO,             OWE(OWNS, GO_SEEN), NO,             NO,          KNOWN(DENIED), NO,           TO(DENIED),    TO(DENIED),    TO(WAITS),     OWE(OWNS, GO_SEEN), KNOWN(DENIED), NO,        NO,          NO,            _},
    [HANDOVER_WAITS]     = {NO,                  NO,       NO,          NO,             _,                  NO,             _,           _,             NO,           TO(DENIED),    TO(DENIED),    _,             TO(OWNS),           KNOWN(DENIED), NO,        NO,          NO,            TO(UNSURE)},
    [HANDOVER_OWNS]      = {_,                   _,        NO,          NO,             _,                  NO,             KNOWN(OWNS), _,             NO,           _,             _,             _,             _,                  _,             NO,        NO,          NO,            _},
    [HANDOVER_DENIED]    = {_,                   _,        NO,          NO,             _,                  NO,             _,           _,             NO,           _,             _,             _,             _,                  KNOWN(DENIED), NO,        NO,          NO,            _},
    [HANDOVER_UNSURE]    = {_,                   _,        NO,          NO,             _,                  NO,             _,           _,             NO,           _,             _,             _,             _,                  KNOWN(DENIED), NO,        NO,          NO,            _},
};
/* clang-format on */

void handover_init(Handover *handover, bool source)
{
    *handover = (Handover){.state = source ? HANDOVER_KEEPS : HANDOVER_LOADS};
}

bool handover_event(Handover *handover, HandoverEvent event)
{
    const Transition *t = &table[handover->state][event];

    if (t->effect != BECOMES) {
        return t->effect == IGNORED;
    }
    if (t->state == HANDOVER_KEPT || t->state == HANDOVER_DENIED) {
        handover->owes = 0; /* a GO or LOADED that has not left yet never will */
    }
    handover->state = t->state;
    handover->owes |= t->owes;
    handover->known |= t->known;
    handover->said_loaded |= t->state == HANDOVER_LOADED;
    handover->asked |= t->state == HANDOVER_ASKS;
    return true;
}

unsigned handover_take(Handover *handover)
{
    static const struct {
        unsigned owes, type;
    } order[] = {{HANDOVER_OWES_LOADED, MESSAGE_LOADED},
                 {HANDOVER_OWES_GO, MESSAGE_GO},
                 {HANDOVER_OWES_GO_SEEN, MESSAGE_GO_SEEN},
                 {HANDOVER_OWES_BYE, MESSAGE_BYE}};

    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        if (handover->owes & order[i].owes) {
            handover->owes &= ~order[i].owes;
            if (order[i].type == MESSAGE_GO) {
                handover_event(handover, HANDOVER_GO_LEAVES);
            }
            return order[i].type;
        }
    }
    return 0;
}

bool handover_over(const Handover *handover)
{
    switch (handover->state) {
    case HANDOVER_GAVE:
    case HANDOVER_KEPT:
    case HANDOVER_LEFT_OPEN:
    case HANDOVER_OWNS:
    case HANDOVER_DENIED:
    case HANDOVER_UNSURE:
        return true;
    default:
        return false;
    }
}

bool handover_succeeded(const Handover *handover)
{
    return handover->state == HANDOVER_GAVE || handover->state == HANDOVER_OWNS;
}

bool handover_needs_connection(const Handover *handover)
{
    return handover->state == HANDOVER_IN_DOUBT || handover->owes ||
           (handover->state == HANDOVER_OWNS && !handover->known);
}

bool handover_answer_is_due(const Handover *handover)
{
    return handover->state == HANDOVER_IN_DOUBT || handover->state == HANDOVER_LOADED;
}

VmfOwner handover_owner(const Handover *handover)
{
    switch (handover->state) {
    case HANDOVER_KEEPS:
    case HANDOVER_AWAITED:
    case HANDOVER_OFFERS:
    case HANDOVER_GIVES:
    case HANDOVER_KEPT:
    case HANDOVER_OWNS:
        return VMF_OWNER_THIS_SIDE;
    case HANDOVER_GAVE:
    case HANDOVER_LOADS:
    case HANDOVER_DENIED:
        return VMF_OWNER_OTHER_SIDE;
    default:
        return VMF_OWNER_UNKNOWN;
    }
}

HandoverAnswer handover_answer(const Handover *handover)
{
    switch (handover->state) {
    case HANDOVER_OWNS:
        return HANDOVER_ANSWER_MINE;
    case HANDOVER_DENIED:
        return HANDOVER_ANSWER_DENIED;
    default:
        return HANDOVER_ANSWER_UNSURE;
    }
}

const char *handover_state_name(HandoverState state)
{
    static const char *const names[] = {
        "keeps",     "awaited", "offers", "gives",  "in doubt", "asks", "gave",   "kept",
        "left open", "settles", "loads",  "loaded", "waits",    "owns", "denied", "unsure"};

    G_STATIC_ASSERT(G_N_ELEMENTS(names) == HANDOVER_STATES);
    return names[state];
}
