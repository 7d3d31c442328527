/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * devices.pml -- device state at switchover: windows, reordering channels, LOADED and GO
 *
 * A model for spin (run by tests/model/check). Small on purpose: every state is
 * visited. It has what the code has: a stream with the state that load jobs need, which
 * SWITCHOVER_START overtakes, a reader that says when it has loaded it, a window of
 * WINDOW buffers for each device, or, with ALONE, buffers that all are larger than it
 * and share room for ALONE of them; save jobs run by WORKERS workers, channels that
 * deliver in their own order each, load jobs that give buffers back in order,
 * configurations loaded by one thread, then LOADED, GO, GO_SEEN. Any job may fail, and
 * either side may be cancelled, at any moment (FAULTS).
 *
 * Checked: no deadlock (every process reaches its end), no buffer without a place,
 * order, no load job before what it needs is loaded, no configuration before the reader
 * has come to the end of the stream, LOADED only with all configurations loaded, GO only
 * after LOADED, never two owners.
 */
#ifndef DEVICES
#define DEVICES 2
#endif
#ifndef CHANNELS
#define CHANNELS 2
#endif
#ifndef BUFFERS
#define BUFFERS 2
#endif
#ifndef WINDOW
#define WINDOW 1
#endif
#ifndef WORKERS
#define WORKERS 1
#endif
#ifndef ALONE
#define ALONE 0
#endif
#ifndef FAULTS
#define FAULTS 1
#endif

#define ANY_CHANNEL 0 .. (CHANNELS - 1)

/* A piece on a channel: device, index, whether it is the configuration. */
chan channel[CHANNELS] = [2] of { byte, byte, bool };
chan control = [3] of { byte }; /* LOADED and GO are flags; this is only credit: a device */

bool stream_put;                /* the state that load jobs need, and a marker */
bool switchover_here;           /* SWITCHOVER_START, which waits for no stream byte */
bool iterative_loaded, begun;   /* the destination's reader */

byte credit[DEVICES];           /* at the source: places that are free */
byte alone_room = ALONE;        /* the same for what is larger than a window, of all devices */
byte alone_here;                /* at the destination */
byte waiting[DEVICES];          /* at the destination: buffers in the window */
bool here[DEVICES * (BUFFERS + 1)];
byte next_index[DEVICES];
bool config_here[DEVICES];
bool loaded_job[DEVICES];
bool loaded_config[DEVICES];
byte saved;
byte turn;                      /* the next device that no worker has taken */

bool source_failed, destination_failed;
bool told_loaded, told_go, source_gave, destination_owns;

#define failed (source_failed || destination_failed)

/* An error on either side reaches the other before it does anything more. */
inline fault()
{
    if
    :: FAULTS && !told_go -> source_failed = true
    :: true -> skip
    fi
}

inline send(d, i, config)
{
    byte c;

    select (c : ANY_CHANNEL);
    if
    :: channel[c] ! d, i, config
    :: failed
    fi
}

proctype worker()
{
    byte d, i;

    do
    :: failed || turn == DEVICES -> break
    :: atomic {
           !failed && turn < DEVICES ->
           d = turn;
           turn++;
           i = 0
       }
        do
        :: i < BUFFERS && !failed ->
            fault();
            if
            :: atomic {
                   credit[d] > 0 && (ALONE == 0 || alone_room > 0) ->
                   credit[d]--;
                   if
                   :: ALONE > 0 -> alone_room--
                   :: else -> skip
                   fi
               }
            :: failed -> break
            fi;
            send(d, i, false);
            i++
        :: else -> break
        od;
        if
        :: !failed ->
            send(d, BUFFERS, true);
            saved++
        :: else -> skip
        fi
    od
}

proctype receive(byte c)
{
    byte d, i;
    bool config;

end:
    do
    :: channel[c] ? d, i, config ->
        atomic {
            if
            :: config ->
                assert(!config_here[d]);
                config_here[d] = true
            :: else ->
                /* The source never sends what has no place. */
                assert(failed || waiting[d] < WINDOW);
                assert(failed || !here[d * (BUFFERS + 1) + i]);
                assert(failed || i >= next_index[d]);
                here[d * (BUFFERS + 1) + i] = true;
                waiting[d]++;
                alone_here++;
                assert(failed || ALONE == 0 || alone_here <= ALONE)
            fi
        }
    od
}

proctype load(byte d)
{
    if
    :: failed -> goto over
    :: switchover_here && begun -> assert(iterative_loaded)
    fi;
    do
    :: failed -> break
    :: !failed && here[d * (BUFFERS + 1) + next_index[d]] && next_index[d] < BUFFERS ->
        if
        :: FAULTS && !told_loaded -> destination_failed = true
        :: atomic {
               waiting[d]--;
               alone_here--;
               next_index[d]++
           };
           control ! d
        fi
    :: !failed && config_here[d] && next_index[d] == BUFFERS ->
        loaded_job[d] = true;
        break
    od;
over:
    skip
}

/* The source's control thread. */
proctype credits()
{
    byte d;

end:
    do
    :: control ? d ->
        atomic {
            credit[d]++;
            if
            :: ALONE > 0 -> alone_room++
            :: else -> skip
            fi
        }
    od
}

proctype destination()
{
    byte done, d;

    if /* the reader */
    :: failed -> goto over
    :: stream_put -> iterative_loaded = true
    fi;
    begun = true;
    do
    :: failed -> goto over
    :: done == DEVICES -> break
    :: else ->
        if
        :: failed -> goto over
        :: loaded_job[0] && !loaded_config[0] -> d = 0
        :: DEVICES > 1 && loaded_job[DEVICES - 1] && !loaded_config[DEVICES - 1] -> d = DEVICES - 1
        :: DEVICES > 2 && loaded_job[1] && !loaded_config[1] -> d = 1
        fi;
        if
        :: FAULTS -> destination_failed = true
        :: true ->
            assert(switchover_here && begun);
            loaded_config[d] = true;
            done++
        fi
    od;
    if
    :: failed -> goto over
    :: else -> skip
    fi;
    for (d : 0 .. DEVICES - 1) {
        assert(loaded_config[d]);
        assert(next_index[d] == BUFFERS)
    }
    told_loaded = true;
    if
    :: told_go ->
        destination_owns = true;
        assert(source_gave)
    :: source_failed && !told_go
    fi;
over:
    skip
}

proctype source()
{
    byte i;

    stream_put = true;
    atomic {
        switchover_here = true;
        for (i : 0 .. WORKERS - 1) {
            run worker()
        }
    }
    if
    :: failed -> goto over
    :: saved == DEVICES -> skip
    fi;
    if
    :: failed -> goto over
    :: told_loaded -> skip
    fi;
    /* GO is never taken back: the source does not run the VM from here on. */
    d_step {
        if
        :: !source_failed ->
            assert(told_loaded);
            source_gave = true;
            told_go = true
        :: else -> skip
        fi
    };
over:
    assert(!(source_failed && source_gave));
    assert(!destination_owns || source_gave)
}

init
{
    byte i;

    atomic {
        for (i : 0 .. DEVICES - 1) {
            credit[i] = WINDOW;
            run load(i)
        }
        for (i : 0 .. CHANNELS - 1) {
            run receive(i)
        }
        run credits();
        run destination();
        run source()
    }
}
