/* SPDX-License-Identifier: BSD-2-Clause */
/* session-state.h -- the inside of a session, in parts by who may touch them */

#ifndef VMF_SESSION_STATE_H
#define VMF_SESSION_STATE_H

#include <vmferry/device.h>
#include <vmferry/plugin/transport.h>
#include <vmferry/qemu-stream.h>

#include "base/message.h"
#include "handover.h"
#include "mailbox.h"
#include "qemu-stream/qemu-hooks.h"
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

/* A channel: its thread, and on the source what that thread is fed with. */
typedef struct SessionChannel {
    VmfSession *session; /* fixed, like the next two */
    unsigned number;
    bool feeds; /* its thread sends what the mailbox brings; else it serves what the peer sends */
    GThread *thread; /* the session's own thread */

    Mailbox mailbox; /* has a lock of its own */
    Payload *own;    /* the channel's thread: what it works on */
    Payload *fill;   /* the session's own thread: RAM ranges that are being gathered */

    bool over;          /* lock: the thread has ended, and reads no client's memory any more */
    uint64_t sync_sent; /* lock; source: the latest sync that went out (and drained, if asked) */
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

/* Fixed, but for `done' (lock): when the set-up began, when it must be over, how long it took. */
typedef struct SessionSetup {
    gint64 began;
    gint64 deadline;
    bool done;
    uint64_t ns;
} SessionSetup;

/*
 * The RAM blocks of both sides. Fixed once the peers agree on the blocks. With stock QEMU as the
 * source that is when the stream has listed them: the thread of channel 0 writes then, and `scan'
 * is read by other threads under the lock.
 */
typedef struct SessionBlocks {
    VmfRamBlocks *set;        /* this side's; a reference */
    const VmfRamBlock **wire; /* conn->blocks: in the order of their numbers on the wire */
    GPtrArray *shorter;       /* destination: of these, the ones made for the session */
    RamScan *scan;
    bool *populated; /* destination: of which blocks some was made resident ahead; or NULL */
    unsigned populated_count; /* the set may have grown since */
    uint64_t populated_bytes;
} SessionBlocks;

/* Lock, but for what says otherwise: the first error, and who waits for the session. */
typedef struct SessionCore {
    GMutex lock;
    GCond changed; /* of anything that the lock guards */
    GError *error; /* the first; set after a good hand-over, too, when the connection ends */
    int failed;    /* atomic: whether `error' is set */
    bool error_from_peer;
    bool hurry;           /* cancelled: nothing is owed to the peer that takes longer */
    GCancellable *cancel; /* fixed: cancelled by the first error */
    int cancel_fd;        /* fixed: of `cancel' */
    GCancellable *asking; /* fixed: cancelled with `hurry' */
} SessionCore;

struct Listening;
struct Answer;

/* Fixed, but for `answer': how the other side is found when the connection is lost. */
typedef struct SessionReach {
    VmfUri *uri;                     /* source */
    const VmfTransport *connect_ops; /* source: `ops' may be another table than what connects */
    struct Listening *listening;     /* destination */
    struct Answer *answer; /* the lock of `listening'; destination: what is said for this session */
    GBytes *first;         /* destination: a message that was read ahead */
} SessionReach;

/* Lock: what the peer has said, and who owns the VM. */
typedef struct SessionPeer {
    Handover handover;
    GError *outcome;     /* of the hand-over, where that is not core.error */
    gint64 answer_since; /* how long handover_answer_is_due() */
    gint64 lost_at;      /* the connection; 0: it is there, or was ended in good order */
    bool blocks_complete, blocks_agreed, ready;
    GArray *blocks; /* destination: MessageBlock, as they come; after that read-only */
} SessionPeer;

/* A small control message on its way out. */
typedef struct OutMessage {
    MessageHeader header;
    uint8_t *payload;
} OutMessage;

/* Lock, but for wake_fd (fixed): what any thread leaves to the control thread. */
typedef struct SessionOutbox {
    GQueue messages; /* OutMessage */
    int wake_fd;
    bool sleeping;     /* the control thread waits for wake_fd */
    bool stop;         /* it is to end */
    gint64 stopped_at; /* when `stop' was set */
    bool over;         /* it reads and sends no more */
} SessionOutbox;

/* The control thread, but for `thread' (the session's own thread). */
typedef struct SessionControl {
    GThread *thread;
    unsigned owed;  /* a message of the hand-over that was taken to be sent */
    bool lost;      /* the connection failed, not what came by it */
    bool from_peer; /* the peer's ERROR was the end */
    bool ended;     /* the peer closed the connection in good order */
    gint64 last_sent, last_heard;
} SessionControl;

/* Lock, but for readable_fd (fixed): the byte streams of both directions. */
typedef struct SessionStreams {
    StreamRing out_ring, in_ring;
    uint64_t settled;        /* bytes that the peer has said it has */
    bool settle_asked;       /* by the peer, and not answered yet */
    uint64_t out_credit;     /* how far the peer allows the out stream to go */
    uint64_t in_credit_told; /* how far this side allowed the in stream to go */
    bool out_ended, out_end_sent, in_ended;
    uint64_t sync_number; /* source: of the latest sync */
    uint64_t out_sync;    /* source: the sync that bytes put from now on need */
    uint64_t final_sync;  /* destination: the one that STREAM_END names */
    bool revoked;         /* destination: the channels have ended, no sync comes any more */
    int readable_fd;      /* what get_fd gives */
    bool readable_set;
    uint64_t bytes; /* of both directions */
} SessionStreams;

/* The session's own thread on the source, but for the limits, which are fixed. */
typedef struct SessionRam {
    uint64_t payload_bytes, range_bytes, queue_max; /* limits: see session_bound_queue() */
    uint64_t queue_taken;                           /* RAM that was put into payloads */
    uint64_t queue_limit;   /* how far that may go before it is looked how far the channels are */
    bool since_sync;        /* RAM went out since the latest sync */
    uint64_t zero_refunded; /* of counters.zero_bytes */
    uint64_t accounted;     /* what is left in the file's position of what was saved */
    bool flushed;           /* for the last time */
} SessionRam;

/* Atomic. */
typedef struct SessionCounters {
    uint64_t queue_done; /* of ram.queue_taken, handed to the transport */
    bool queue_waits;    /* somebody wants to be told of that */
    uint64_t ram_bytes, zero_bytes;
    uint64_t last_flush_ns;
    unsigned next_channel; /* that is asked first for device state */
    unsigned room_wanted;  /* so many threads wait until any channel has room */
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

/* Lock: for clients of the channels other than RAM. */
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
    const struct SessionPeerOps *peer_ops;     /* by what the peer is */
    const struct SessionDeviceOps *device_ops; /* what the session asks of `devices' */
    VmfDevices *devices;                       /* guards itself, by the lock and its threads */
    VmfFile *file;                             /* the session's own thread */
    SessionChannel *channels;
    unsigned channel_count; /* lock, while the session is made: only whole ones are counted */

    SessionOptions options;
    SessionSetup setup;
    SessionBlocks blocks;
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
