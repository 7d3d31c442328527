/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * handover.pml -- who owns the VM: both sides of a hand-over, a connection that may be lost
 * at any moment, and the questions over another one (docs/handover.md, transport/session/handover.c)
 *
 * spin visits every state. Checked: never do both sides run the VM; if neither does, one of them
 * says that it does not know; every wait ends. Three variants are wrong, and spin must find
 * that: OLD (the control thread looks for a failure, and takes GO later without looking again),
 * GUESSES (a destination that has waited long enough takes the VM), TAKES_BACK (a source that has
 * asked long enough does).
 */
#ifndef CANCELS
#define CANCELS 1 /* how often each side's user may cancel */
#endif
#ifndef ASKS
#define ASKS 2 /* attempts to ask or tell */
#endif
#ifndef LOSSES
#define LOSSES 1 /* the connection may be lost */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1 /* a wait may end by itself; without, questions are answered */
#endif

mtype = { LOADED, GO, GO_SEEN, BYE, ERROR, SENT, NEVER, MINE, DENIED_IT, UNSURE_IT };
mtype = { keeps, offers, gives, in_doubt, asks, gave, kept, left_open };
mtype = { loads, loaded, waits, owns, denied, unsure };

/* What is on the way. A lost connection keeps or loses what is in it, and takes no more. */
chan forth = [3] of { mtype };
chan back = [3] of { mtype };
bool lost;
bool source_left, destination_left; /* the thread that reads the connection has ended */

/* The other connection: one question and its answer at a time. */
chan question = [0] of { mtype };
chan answer = [0] of { mtype };

mtype source = keeps;
mtype destination = loads;
bool owes_go, owes_loaded, owes_seen;
bool stream_ended; /* the source has offered all it has */

#define source_over (source == gave || source == kept || source == left_open)
#define destination_over (destination == owns || destination == denied || destination == unsure)

inline send(channel, message)
{
    if
    :: lost || full(channel) -> skip
    :: !lost && nfull(channel) -> channel ! message
    fi
}

/* --- the source --- */

inline source_fails()
{
    if
    :: source == keeps || source == offers || source == gives ->
        source = kept;
        owes_go = false;
        send(forth, ERROR)
    :: else -> skip
    fi
}

active proctype source_control()
{
    mtype m;
    bool looked;

    do
    :: source == kept || source == gave || source == left_open || source == asks -> break
#ifdef OLD
    :: atomic { source == gives && owes_go && !looked -> looked = true }
    :: atomic {
           looked ->
           looked = false;
           owes_go = false;
           send(forth, GO); /* whatever has happened in between */
           if
           :: source == gives -> source = in_doubt
           :: else -> skip
           fi
       }
#else
    /* One step: the look at the state, and the taking. */
    :: atomic {
           source == gives && owes_go ->
           owes_go = false;
           source = in_doubt;
           send(forth, GO)
       }
#endif
    :: atomic {
           back ? [m] && !source_over && source != asks ->
           back ? m;
           if
           :: m == LOADED && source == offers ->
               source = gives;
               owes_go = true
           :: m == GO_SEEN && source == in_doubt ->
               source = gave;
               send(forth, BYE)
           :: m == ERROR && (source == offers || source == gives || source == keeps) ->
               source = kept;
               owes_go = false
           :: m == ERROR && source == in_doubt -> source = kept
           :: else -> skip
           fi
       }
    /* Lost, or silent for the time-out. */
    :: atomic {
           lost || destination_left || (TIMEOUTS && source == in_doubt) ->
           if
           :: source == in_doubt -> source = asks
           :: source == keeps || source == offers || source == gives ->
               source = kept;
               owes_go = false
           :: else -> skip
           fi;
           source_left = true
       }
    od;
    source_left = true;
#ifdef OLD
    if
    :: looked -> send(forth, GO)
    :: else -> skip
    fi;
#endif
    /* Over another connection. */
    byte tries = 0;
    do
    :: source == asks && tries < ASKS ->
        tries++;
        if
        :: question ! SENT ->
            if
            :: answer ? m ->
                atomic {
                    if
                    :: source != asks -> skip /* cancelled meanwhile */
                    :: source == asks && m == MINE -> source = gave
                    :: source == asks && m == DENIED_IT -> source = kept
                    :: source == asks && m == UNSURE_IT -> source = left_open
                    fi
                }
#if TIMEOUTS
            :: true -> /* the answer is lost */
                answer ? m
#endif
            fi
#if TIMEOUTS
        :: true -> skip /* nobody was reached */
#endif
        fi
    :: source == kept && (lost || destination_left) && tries < ASKS ->
        tries++;
        if
        :: question ! NEVER ->
            answer ? m;
            break
#if TIMEOUTS
        :: true -> skip
#endif
        fi
#ifdef TAKES_BACK
    :: atomic { source == asks && tries == ASKS -> source = kept }
#else
    :: atomic { source == asks && tries == ASKS -> source = left_open }
#endif
    :: source_over && !(source == kept && (lost || destination_left) && tries < ASKS) -> break
    od
}

active proctype source_complete()
{
    atomic {
        if
        :: source == keeps ->
            source = offers;
            stream_ended = true
        :: else -> skip
        fi
    };
    source_over
}

active proctype source_user()
{
    byte i = 0;

    do
    :: i < CANCELS && !source_over ->
        i++;
        atomic {
            if
            :: source == asks -> source = left_open
            :: else -> source_fails()
            fi
        }
    :: true -> break
    od
}

/* --- the destination --- */

active proctype destination_control()
{
    mtype m;

    do
    :: atomic {
           owes_loaded ->
           owes_loaded = false;
           send(back, LOADED)
       }
    :: atomic {
           owes_seen ->
           owes_seen = false;
           send(back, GO_SEEN)
       }
    :: atomic {
           forth ? [m] && !destination_left ->
           forth ? m;
           if
           :: m == GO && destination == loaded ->
               destination = owns;
               owes_seen = true
           :: m == ERROR && (destination == loads || destination == loaded) ->
               destination = denied;
               owes_loaded = false
           :: else -> skip
           fi
       }
    :: atomic {
           (lost || source_left || (TIMEOUTS && destination == loaded && !owes_loaded)) && !destination_left ->
           destination_left = true;
           if
           :: destination == loaded -> destination = waits
           :: destination == loads -> destination = denied
           :: else -> skip
           fi
       }
    :: (destination_left || (destination_over && source_left)) -> break
    od;
    destination_left = true
}

active proctype destination_complete()
{
    stream_ended || destination == denied;
    atomic {
        if
        :: destination == loads ->
            destination = loaded;
            owes_loaded = true
        :: else -> skip
        fi
    };
    do
    :: destination_over -> break
#ifdef GUESSES
    :: atomic { destination == waits && TIMEOUTS -> destination = owns }
#else
    :: atomic { destination == waits && TIMEOUTS -> destination = unsure }
#endif
    od
}

active proctype destination_user()
{
    byte i = 0;

    do
    :: i < CANCELS && !destination_over ->
        i++;
        atomic {
            if
            :: destination == loads || destination == loaded || destination == waits ->
                destination = denied;
                owes_loaded = false;
                send(back, ERROR)
            :: else -> skip
            fi
        }
    :: true -> break
    od
}

/* The listener: it lives as long as the session, and longer. The process may die, too. */
active proctype destination_answers()
{
    mtype m;

end:
    do
    :: question ? m ->
        atomic {
            if
            :: m == SENT && (destination == loaded || destination == waits) -> destination = owns
            :: m == NEVER && (destination == loads || destination == loaded ||
                              destination == waits || destination == unsure) ->
                destination = denied;
                owes_loaded = false
            :: else -> skip
            fi;
            /* What it said stays so. */
            if
            :: destination == owns -> m = MINE
            :: destination == denied -> m = DENIED_IT
            :: destination != owns && destination != denied -> m = UNSURE_IT
            fi
        };
        answer ! m
    od
}

active proctype network()
{
    mtype m;

    if
    :: LOSSES ->
        atomic {
            lost = true;
            /* What was under way may arrive or not. */
            do
            :: forth ? m
            :: back ? m
            :: true -> break
            od
        }
    :: true -> skip
    fi
}

/* --- what must hold --- */

#define source_owns (source == keeps || source == offers || source == gives || source == kept)

active proctype never_two()
{
end:
    atomic { source_owns && destination == owns -> assert(false) }
}

/* Who has given it up says so only when the other has it; "left open" is to say so. */
active proctype never_none_without_a_word()
{
end:
    atomic { source == gave && destination != owns -> assert(false) }
}
