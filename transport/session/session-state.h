/* SPDX-License-Identifier: BSD-2-Clause */
/* session-state.h -- the inside of a session */

#ifndef VMF_SESSION_STATE_H
#define VMF_SESSION_STATE_H

#include <vmferry/device.h>
#include <vmferry/plugin/transport.h>

#include "handover.h"
#include "base/message.h"
#include "mailbox.h"
#include "qemu-stream/qemu-hooks.h"
#include <vmferry/qemu-stream.h>
#include "ram/ram-scan.h"
#include "stream-ring.h"

/* One channel: its thread, and on the source what that thread is fed with. */
typedef struct SessionChannel {
    VmfSession *session;
    unsigned number;
    GThread *thread;

    /* Source. */
    Mailbox mailbox;
    Payload *own;  /* the thread's: what it works on */
    Payload *fill; /* the session thread's: RAM ranges being gathered */

    /* Under the session's lock. */
    bool over;          /* the thread has ended: it reads no client's memory any more */
    uint64_t sync_sent; /* source: the latest sync that went out (and drained, if asked) */
    uint64_t sync_seen; /* destination */
    struct DeviceArrival *arriving; /* destination; the channel's thread only */
    uint64_t arriving_bytes;
} SessionChannel;

/* A small control message on its way out. */
typedef struct OutMessage {
    MessageHeader header;
    uint8_t *payload;
} OutMessage;

struct Listening;

struct VmfSession {
    VmfRole role;
    const VmfTransport *ops;
    VmfConn *conn;
    VmfRamBlocks *blocks;
    const VmfRamBlock **wire_blocks; /* conn->blocks */
    GPtrArray *shorter_blocks;       /* destination: of these, those made for the session */
    RamScan *scan;
    bool *populated; /* destination: of which blocks some was made resident ahead; or NULL */
    unsigned populated_count; /* the set may have grown since */
    uint64_t populated_bytes;
    bool zero_detect;
    bool chained; /* the user's cancellable is connected */
    GCancellable *cancel;
    int cancel_fd;
    gint64 connect_timeout_us;
    gint64 setup_began;
    gint64 setup_deadline; /* for all of the set-up */
    /* How the other side is found when the connection is lost in the hand-over. */
    VmfUri *uri;                     /* source */
    const VmfTransport *connect_ops; /* source: `ops' may be another table than what connects */
    struct Listening *listening;     /* destination */
    struct Answer *answer;           /* destination: what `listening' says for this session */
    GBytes *first;                   /* destination: a message that was read ahead */
    GCancellable *asking;            /* cancelled with hurry */
    VmfFile *file;
    SessionChannel *channels;
    unsigned channel_count;

    GMutex lock;
    GCond changed; /* of anything below */

    GError *error; /* the first; set after a good hand-over, too, when the connection ends */
    int failed;    /* atomic */
    bool error_from_peer;

    Handover handover;
    GError *outcome;     /* of the hand-over, where that is not `error' */
    gint64 answer_since; /* how long handover_answer_is_due() */
    gint64 lost_at;      /* the connection; 0: it is there, or was ended in good order */
    bool hurry;          /* cancelled: nothing is owed to the peer that takes longer */

    /* What the peer has said. */
    bool blocks_complete, blocks_agreed, peer_ready;
    GArray *peer_blocks; /* destination: MessageBlock, as they come */
    bool setup_done;

    /* Control thread. */
    GThread *control_thread;
    int wake_fd;
    bool control_sleeping, control_stop;
    gint64 stopped_at; /* when control_stop was set */
    bool control_over; /* the thread reads and sends no more */
    unsigned
        control_owed;  /* control thread only: a hand-over's message that was taken to be sent */
    bool control_lost; /* control thread only: the connection failed, not what came by it */
    bool control_from_peer;       /* control thread only: the peer's ERROR was the end */
    bool control_ended;           /* control thread only: the peer closed it in good order */
    GQueue out;                   /* OutMessage */
    gint64 last_sent, last_heard; /* control thread only */

    /* Streams. */
    StreamRing out_ring, in_ring;
    uint64_t settled;        /* stream bytes that the peer has said it has */
    bool settle_asked;       /* by the peer, and not answered yet */
    uint64_t out_credit;     /* how far the peer allows the out stream to go */
    uint64_t in_credit_told; /* how far we allowed the in stream to go */
    bool out_ended, out_end_sent, in_ended;
    uint64_t out_sync; /* needed by stream bytes put from now on */
    int readable_fd;   /* what get_fd gives */
    bool readable_set;
    uint64_t stream_bytes;

    /* With a foreign peer. */
    VmfQemuStream *qemu;  /* the stream as far as it was sent, or has arrived */
    QemuHooks hooks;      /* source: which hooks the destination is told */
    bool blocks_checked;  /* source: the stream lists the same RAM blocks */
    uint64_t *lengths;    /* source: conn->block_lengths */
    SessionChannel *back; /* the return path, if it is open */

    /* RAM and sync: the session's own thread on the source. */
    uint64_t payload_bytes, range_bytes, queue_max; /* see session_bound_queue() */
    uint64_t queue_taken;                           /* RAM that was put into payloads */
    uint64_t queue_limit; /* how far that may go before it is looked how far the channels are */
    uint64_t queue_done;  /* atomic; of queue_taken, handed to the transport */
    bool queue_waits;     /* atomic; somebody wants to be told of that */
    uint64_t sync_number;
    bool ram_since_sync;
    uint64_t ram_bytes, zero_bytes; /* atomic */
    uint64_t zero_refunded;         /* of zero_bytes; the session's own thread, like the next */
    uint64_t ram_accounted;         /* what is left in the file's position of what was saved */
    uint64_t last_flush_ns;
    bool ram_flushed; /* for the last time; the session's own thread */

    /* Device state. */
    VmfDevices *devices;   /* NULL: none */
    unsigned next_channel; /* atomic */
    unsigned room_wanted;  /* atomic: so many wait until any channel has room */
    GQueue free_payloads;  /* for clients that send device state; under lock */
    uint64_t device_bytes;
    uint64_t window_bytes;   /* source: what the destination keeps for each device */
    uint32_t window_buffers; /* 0: it has not said yet */
    uint64_t window_alone;   /* for buffers larger than that, of all devices */
    struct {
        unsigned workers, buffers, all_buffers;
        uint64_t bytes, all_bytes;
        gint64 timeout_us;
    } device_options;
    uint64_t final_sync; /* destination: named by STREAM_END */
    bool revoked;        /* destination: the channels have ended, no sync comes any more */
    uint64_t setup_ns;
};

/* --- session.c --- */
VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks);
bool session_make_descriptors(VmfSession *s, GError **error);
/* A connection that the engine can use, or NULL: the transport has it back. */
VmfConn *session_usable(VmfConn *conn, const VmfTransport *ops, GError **error);
/* The transport's connection becomes the session's. */
void session_adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri);
/* From session_adopt() to a session that works; on failure the session's error is reported. */
bool session_make_ready(VmfSession *s, const VmfUri *uri, GError **error);
/* While it is made, the user's cancellable (or NULL) cancels the session. */
gulong session_chain(VmfSession *s, GCancellable *cancellable);
/* The session, or NULL (it is freed) if it did not become one. */
VmfSession *session_finish(VmfSession *s, bool ok, GCancellable *cancellable, gulong chained);
/*
 * Takes the error over: it is the session's if it is the first; everything wakes up. NULL: who
 * failed gave no reason.
 */
void session_fail(VmfSession *s, GError *error, bool from_peer);
/* The same: the control connection is no more. */
void session_lost(VmfSession *s, GError *error);
/* The same, for what the hand-over calls it (HANDOVER_CANCEL, ...). */
void session_fail_as(VmfSession *s, GError *error, HandoverEvent event);
/* An error for something that failed without giving one. */
void session_need_error(GError **failure, const char *what);
/* The code of an error as it travels: codes of other domains mean nothing to the peer. */
uint64_t session_error_code(const GError *error);
static inline bool session_failed(VmfSession *s)
{
    return __atomic_load_n(&s->failed, __ATOMIC_ACQUIRE);
}
/* Always false, with a copy of the session's error. */
bool session_report(VmfSession *s, GError **error);

/* --- session-complete.c --- */
/* What the hand-over does with it; the caller holds the lock. false: it cannot come now. */
bool session_event_locked(VmfSession *s, HandoverEvent event);
bool session_event(VmfSession *s, HandoverEvent event);
/* How the hand-over ended: true, or a copy of the reason. */
bool session_outcome(VmfSession *s, GError **error);

/* --- session-greet.c --- */
/* A control connection before a thread of its own has it. */
typedef struct Direct {
    const VmfTransport *ops;
    VmfConn *conn;
    GCancellable *cancel;
    int cancel_fd;
    gint64 deadline;
    const char *what; /* is being done */
} Direct;
bool direct_send(const Direct *d, unsigned type, uint64_t argument, const void *payload,
                 size_t size, GError **error);
/* The next message from the other side; its payload is valid until the next call. */
bool direct_receive(const Direct *d, VmfRole sender, MessageHeader *header, const uint8_t **payload,
                    GError **error);
bool session_shake_hands(VmfSession *s, const VmfUri *uri, GError **error);
/* Tells a peer why it is turned away, as well as that goes. */
void session_refuse(VmfSession *s, const GError *reason);

/* --- session-ask.c --- */
/*
 * Source, at the end of the control thread: asks the destination for the outcome over another
 * connection, or tells it that GO was never sent, if either is needed.
 */
void session_ask(VmfSession *s);

/* --- session-answer.c: a destination's listener, and what its sessions say to who asks --- */
typedef struct Listening Listening;
typedef struct Answer Answer;
Listening *listening_new(const VmfUri *uri, GError **error);
const VmfUri *listening_uri(const Listening *l);
const VmfTransport *listening_ops(const Listening *l);
VmfTransportListener *listening_transport(const Listening *l);
Listening *listening_ref(Listening *l);
void listening_unref(Listening *l);
/* No more sessions are wanted. */
void listening_disown(Listening *l);
/* Who accepts a session claims the transport's listener for that time. */
void listening_claim(Listening *l);
void listening_release(Listening *l);
/* The next connection, and what was read of it already (or NULL); the claim is the caller's. */
VmfConn *listening_accept(Listening *l, GCancellable *cancel, GBytes **first, GError **error);
/* The session's answer may be asked for from now on, by its UUID. */
void listening_add(VmfSession *s);
/* ... and the source is listened to, until its answer is known. */
void listening_answer(VmfSession *s);
/* The session ends: with the listener still wanted its answer is kept. */
void listening_remove(VmfSession *s);
/* A connection began with that ASK: answers it. */
void listening_asked(Listening *l, const Direct *d, const MessageHeader *header,
                     const uint8_t *payload);

/* --- session-setup.c --- */
/* Everything between the handshake and the first page. */
bool session_set_up(VmfSession *s, GError **error);

/* The same with stock QEMU. */
bool session_set_up_foreign(VmfSession *s, GError **error);
/* The most blocks that a source can name. */
unsigned session_blocks_max(const VmfSession *s);
/* The peer's list of blocks (s->peer_blocks) against ours: makes s->wire_blocks in its order. */
bool session_match_blocks(VmfSession *s, GError **error);
bool session_prepare_channels(VmfSession *s, GError **error);

/* --- session-foreign.c --- */
bool qemu_peer_source_item(void *opaque, const VmfQemuItem *item, GError **error);
/* RAM comes: what leads to it goes. */
bool qemu_peer_begin_ram(VmfSession *s, GError **error);
bool qemu_peer_put_stream(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error);
/* Opens the return path, if that can be. The session's own thread. */
bool qemu_peer_open_back(VmfSession *s, GError **error);
/* Ends it; the session has failed or is over. */
void qemu_peer_close_back(VmfSession *s);
/* Source: everything is at the peer. */
bool qemu_peer_settle(VmfSession *s, GError **error);
bool qemu_peer_stream_arrived(VmfConn *conn, const uint8_t *data, size_t size, bool *hook,
                              GError **error);
void qemu_peer_stream_ended(VmfConn *conn);
bool qemu_peer_stream_blocks(VmfConn *conn, GError **error);

/* --- session-control.c --- */
bool session_start_control(VmfSession *s, GError **error);
/* Lets the control thread send what is queued, and ends it. */
void session_stop_control(VmfSession *s);
/* Queues a message; `payload' is copied. Any thread. */
void session_post(VmfSession *s, unsigned type, unsigned flags, uint64_t argument,
                  const void *payload, size_t size);
/* Wakes the control thread; the caller holds the lock. */
void session_wake_control_locked(VmfSession *s);

/* --- session-dispatch.c --- */
/*
 * Destination: false if the channels were ended before a sync came that the
 * stream waits for: it would wait for ever. The caller holds the lock.
 */
bool session_syncs_can_come_locked(const VmfSession *s, GError **error);
/* Answers the source's question whether its stream is here, if it is. Any thread. */
void session_answer_settle(VmfSession *s);
bool session_dispatch(VmfSession *s, const uint8_t *message, size_t size, GError **error);

/* --- session-stream.c --- */
bool session_open_file(VmfSession *s, GError **error);
/* Brings the descriptor of get_fd in step; the caller holds the lock. */
void session_update_readable_locked(VmfSession *s);
/* The newest sync that every channel has seen; the caller holds the lock. */
uint64_t session_seen_locked(const VmfSession *s);
void session_end_stream(VmfSession *s);
bool session_put_stream(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                        unsigned flags, GError **error);

/* --- session-ram.c --- */
/* Smaller parts of a page than that are neither a range of their own nor called zero. */
#define RAM_CUT UINT64_C(4096)
/* How much RAM may wait for the channels; when the transport has set RAM up. */
void session_bound_queue(VmfSession *s);
/* A channel's thread has handed that much RAM to the transport. */
void session_ram_done(VmfSession *s, uint64_t bytes);
bool session_save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                      unsigned flags, uint64_t *accounted, GError **error);
bool session_flush_ram(void *opaque, VmfFlush how, unsigned flags, GError **error);
/* Tells the transport whether the channels' work is over. The session's own thread. */
void session_update_channels_done(VmfSession *s);
/* Hands what was gathered for a channel to it, and then what is in channel->fill. */
bool session_submit_fill(VmfSession *s, SessionChannel *channel, GError **error);
/* A new sync on every channel, behind all before; with `drain' it waits until that is written. */
bool session_sync(VmfSession *s, bool drain, GError **error);
/*
 * If RAM went out since the last sync: a new one on every channel. No stream byte waits for
 * device state, which the last flush's sync is behind.
 */
bool session_fence(VmfSession *s, GError **error);

/* --- session-channel.c --- */
/* All but the mailbox, which can fail and has an init of its own; clear takes both. */
void session_channel_init(SessionChannel *channel, VmfSession *s, unsigned number);
void session_channel_clear(SessionChannel *channel);
bool session_start_channels(VmfSession *s, GError **error);
bool session_start_channel(SessionChannel *channel, GError **error);
/* Ends and joins them; they must have a reason to end (failure, revoke, or nothing to do). */
void session_join_channels(VmfSession *s);
extern const VmfConnHost session_host;

/* --- session-client.c --- */
/* A payload for a client, and back. */
Payload *session_get_payload(VmfSession *s);
void session_return_payload(VmfSession *s, Payload *payload);
/* Hands the payload to the channel, counting it in `done'; false when the channel has ended. */
bool session_submit(VmfSession *s, SessionChannel *channel, Payload **payload, PayloadDone *done);
/* The same with whichever channel has room first. */
bool session_submit_anywhere(VmfSession *s, Payload **payload, PayloadDone *done);
/* A channel has taken a payload: who waits for room may have it. The channel's thread. */
void session_tell_room(VmfSession *s);
/* The channel is through with a payload that points to `done'. */
void session_done(VmfSession *s, PayloadDone *done);
bool session_is_done(VmfSession *s, const PayloadDone *done);
/*
 * Waits until no channel works for `done' any more: at its end, or, when the
 * session has failed, as soon as every channel has let go. false on failure.
 */
bool session_await_done(VmfSession *s, const PayloadDone *done, GError **error);

static inline VmfSession *conn_session(VmfConn *conn)
{
    return conn->session;
}

#endif
