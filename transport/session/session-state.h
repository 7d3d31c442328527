/* SPDX-License-Identifier: BSD-2-Clause */
/* session-state.h -- the inside of a session, in parts that say who may touch them */

#ifndef VMF_SESSION_STATE_H
#define VMF_SESSION_STATE_H

#include <vmferry/device.h>
#include <vmferry/plugin/transport.h>
#include <vmferry/qemu-stream.h>

#include "base/message.h"
#include "handover.h"
#include "mailbox.h"
#include "qemu-stream/qemu-hooks.h"
#include "ram/populate.h"
#include "ram/ram-scan.h"
#include "stream-ring.h"

/*
 * Each part says what guards it. The four guards are:
 *
 *   fixed     written while the session is made, by the thread that makes it; read-only afterwards
 *   lock      SessionCore.lock; SessionCore.changed is broadcast when something changes
 *   atomic    any thread, by atomic access
 *   a thread  the named one alone. The session's own thread is the one that uses its VmfFile.
 *
 * docs/threads.md lists the threads and the order of the locks.
 */

/* A channel: its thread, and what feeds that thread. */
typedef struct SessionChannel {
    VmfSession *session; /* fixed, like the next two */
    unsigned number;
    bool feeds; /* its thread sends what the mailbox brings; else it serves what the peer sends */
    GThread *thread; /* the session's own thread */

    Mailbox mailbox; /* has a lock of its own */
    Payload *own;    /* the channel's thread: what it works on */
    Payload *fill;   /* the session's own thread: RAM ranges that are being gathered */

    bool over;          /* lock: the thread has ended, and reads no client's memory any more */
    uint64_t sync_sent; /* lock; source: the latest sync that went out (and is written, if asked) */
    uint64_t sync_seen; /* lock; destination: the latest sync that came */
} SessionChannel;

/* Fixed: what the URI's options say. */
typedef struct SessionOptions {
    bool zero_detect;
    gint64 connect_timeout_us;
    struct {
        unsigned workers, buffers, all_buffers;
        uint64_t bytes, all_bytes;
        gint64 timeout_us;
    } device;
} SessionOptions;

/* Fixed, except `deadline' and `done' (lock): when it began, must be over, how long it took. */
typedef struct SessionSetup {
    gint64 began;
    gint64 deadline;
    bool done;
    uint64_t ns;
} SessionSetup;

typedef enum {
    LATE_RAM_UNNAMED,    /* this side has not named its RAM yet */
    LATE_RAM_NAMED,      /* this side has, and waits for the other */
    LATE_RAM_SETTING_UP, /* `thread' runs */
    LATE_RAM_READY,      /* RAM is set up */
    LATE_RAM_OVER        /* it never will be */
} LateRamState;

/* Lock, unless a member says otherwise: see session-late-ram.h. */
typedef struct SessionLateRam {
    bool on; /* fixed after the greeting: RAM is late; else the rest means nothing */
    LateRamState state;
    GThread *thread;
    bool awaited; /* the session's own thread: it has seen LATE_RAM_READY */
} SessionLateRam;

/*
 * The RAM blocks of both sides. Fixed after the peers have agreed on them. RAM that is named late
 * is fixed after LATE_RAM_READY. If the source is stock QEMU, that is when the stream has listed
 * them. Then the thread of channel 0 writes, and other threads read `scan' under the lock.
 */
typedef struct SessionBlocks {
    VmfRamBlocks *set;        /* this side's; a reference */
    const VmfRamBlock **wire; /* conn->blocks: in the order of their numbers on the wire */
    GPtrArray *shorter; /* destination: those of `wire' that are copies, made for the session */
    RamScan *scan;
    Populated *populated; /* destination: what was made resident ahead, or NULL */
    bool keeps;           /* nothing of that is given back; fixed before the channels start */
} SessionBlocks;

/* Lock, unless a member says otherwise: the first error, and those that wait for the session. */
typedef struct SessionCore {
    GMutex lock;
    GCond changed; /* anything that the lock guards */
    GError *error; /* the first; also set after a good hand-over, when the connection ends */
    int failed;    /* atomic: whether `error' is set */
    bool error_from_peer;
    bool hurry;           /* cancelled: nothing is done for the peer that takes longer */
    GCancellable *cancel; /* fixed: cancelled by the first error */
    int cancel_fd;        /* fixed: of `cancel' */
    GCancellable *asking; /* fixed: cancelled with `hurry' */
} SessionCore;

struct Listening;
struct Answer;

/* Fixed, except `answer': how the other side is found after the connection is lost. */
typedef struct SessionReach {
    VmfUri *uri;                     /* source */
    const VmfTransport *connect_ops; /* source: what connects; `ops' may be another table */
    struct Listening *listening;     /* destination */
    /* Destination: its answer. The own thread writes it, under the lock of `listening'. */
    struct Answer *answer;
    GBytes *first; /* destination: a message that was read ahead; or NULL */
} SessionReach;

/* Lock: what the peer has said, and who owns the VM. */
typedef struct SessionPeer {
    Handover handover;
    GError *outcome;     /* of the hand-over, if that is not core.error */
    gint64 answer_since; /* when the hand-over changed last: an answer is due from then on */
    gint64 lost_at;      /* when the connection was lost; 0: it is there, or ended in good order */
    bool blocks_complete, blocks_agreed, ready;
    /*
     * Destination: MessageBlock. The control thread's until blocks_complete; with stock QEMU the
     * thread's of channel 0. Fixed after that.
     */
    GArray *blocks;
} SessionPeer;

/* A small control message that waits to be sent. */
typedef struct OutMessage {
    MessageHeader header;
    uint8_t *payload;
} OutMessage;

/* Lock, except wake_fd (fixed): what other threads leave to the control thread. */
typedef struct SessionOutbox {
    GQueue messages; /* OutMessage */
    int wake_fd;
    bool sleeping;     /* the control thread waits for wake_fd */
    bool stop;         /* the control thread has to end */
    gint64 stopped_at; /* when `stop' was set */
    bool over;         /* the control thread reads and sends no more */
} SessionOutbox;

/* The control thread, except `thread' (the session's own thread). */
typedef struct SessionControl {
    GThread *thread;
    unsigned owed;  /* a message of the hand-over that was taken and is not sent */
    bool lost;      /* the connection has failed, and not a message */
    bool from_peer; /* the peer's ERROR ended it */
    bool ended;     /* the peer closed the connection in good order */
    gint64 last_sent, last_heard;
} SessionControl;

/* Lock, except readable_fd (fixed): the byte streams of both directions. */
typedef struct SessionStreams {
    StreamRing out_ring, in_ring;
    uint64_t settled;        /* bytes that the peer has settled */
    bool settle_asked;       /* by the peer; it has no answer yet */
    uint64_t out_credit;     /* the peer's credit: how far this side may send */
    uint64_t in_credit_told; /* this side's credit: how far the peer may send */
    bool out_ended, out_end_sent, in_ended;
    uint64_t sync_number; /* source: of the latest sync */
    uint64_t out_sync;    /* source: the sync that bytes put from now on need */
    uint64_t final_sync;  /* destination: the sync that STREAM_END names */
    bool revoked;         /* destination: the channels have ended, so no sync comes */
    int readable_fd;      /* what get_fd returns */
    bool readable_set;
    uint64_t bytes; /* put; on a destination got, too */
} SessionStreams;

/* The session's own thread on the source, except the limits, which are fixed. */
typedef struct SessionRam {
    uint64_t payload_bytes, range_bytes, queue_max; /* limits, see session_bound_queue() */
    uint64_t queue_taken;                           /* bytes of RAM put into payloads */
    uint64_t queue_limit;   /* up to that, nobody has to look how far the channels are */
    bool since_sync;        /* RAM went out since the latest sync */
    uint64_t zero_refunded; /* how much of counters.zero_bytes */
    uint64_t accounted;     /* saved RAM that still counts in the file's position */
    bool flushed;           /* the last flush is over */
} SessionRam;

/* Atomic. */
typedef struct SessionCounters {
    uint64_t queue_done; /* bytes of ram.queue_taken that the transport has */
    bool queue_waits;    /* the session's own thread waits for that */
    uint64_t ram_bytes, zero_bytes;
    uint64_t last_flush_ns;
    unsigned next_channel; /* the channel that is asked first for device state */
    unsigned room_wanted;  /* number of threads that wait until a channel has room */
} SessionCounters;

/*
 * With stock QEMU as the peer. Source: the session's own thread. Destination: the thread of
 * channel 0.
 */
typedef struct SessionQemu {
    VmfQemuStream *stream; /* as far as it was sent, or has arrived */
    QemuHooks hooks;       /* source: which hooks the destination is told */
    bool blocks_checked;   /* source: the stream lists the same RAM blocks */
    uint64_t *lengths;     /* source: conn->block_lengths */
    SessionChannel *back;  /* lock: the return path, if it is open */
} SessionQemu;

/* Lock: for clients of the channels, except RAM. */
typedef struct SessionClients {
    GQueue free_payloads; /* Payload */
} SessionClients;

struct SessionPeerOps;
struct SessionDeviceOps;

struct VmfSession {
    /* Fixed. */
    VmfRole role;
    const VmfTransport *ops;
    VmfConn *conn;
    const struct SessionPeerOps *peer_ops;     /* by the kind of the peer */
    const struct SessionDeviceOps *device_ops; /* what the session calls of `devices' */
    VmfDevices *devices;                       /* guarded as device/device-set.h says */
    VmfFile *file;                             /* the session's own thread */
    SessionChannel *channels;
    unsigned channel_count; /* lock, while the session is made: channels with a mailbox */

    SessionOptions options;
    SessionSetup setup;
    SessionBlocks blocks;
    SessionLateRam late_ram;
    SessionReach reach;
    SessionCore core;
    SessionPeer peer;
    SessionOutbox outbox;
    SessionControl control;
    SessionStreams streams;
    SessionRam ram;
    SessionCounters counters;
    SessionClients clients;
    SessionQemu qemu;
};

static inline VmfSession *conn_session(VmfConn *conn)
{
    return conn->session;
}

/* Whether the session has an error. Any thread, without the lock. */
static inline bool session_failed(VmfSession *s)
{
    return __atomic_load_n(&s->core.failed, __ATOMIC_ACQUIRE);
}

#endif
