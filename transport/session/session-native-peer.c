/* SPDX-License-Identifier: BSD-2-Clause */
/* session-native-peer.c -- a session with vmferry: set-up, stream and hand-over */

#include "session-answer.h"
#include "session-blocks.h"
#include "session-channel.h"
#include "session-control.h"
#include "session-core.h"
#include "session-handshake.h"
#include "session-late-ram.h"
#include "session-outcome.h"
#include "session-peer.h"
#include "session-post.h"
#include "session-ram.h"
#include "session-revoke.h"
#include "session-stream-file.h"
#include "session-waking.h"

/* So many bytes are read before the sender gets new credit. */
#define CREDIT_STEP (STREAM_RING / 4)

/* --- set-up --- */

/* Waits for *flag, which the control thread sets. That thread also checks the set-up's deadline. */
static bool await_flag(VmfSession *s, const bool *flag, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    while (!*flag && !s->core.error) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    ok = *flag && !s->core.error;
    g_mutex_unlock(&s->core.lock);
    return ok || session_report(s, error);
}

static bool agree_on_blocks(VmfSession *s, GError **error)
{
    if (s->role == VMF_ROLE_SOURCE) {
        session_use_own_order(s);
        session_post_blocks(s);
        /* Both sides look at their memory at the same time. */
        s->blocks.scan = ram_scan_new(s->blocks.set, PRESENCE_READ, error);
        if (!s->blocks.scan || !await_flag(s, &s->peer.blocks_agreed, error)) {
            return false;
        }
    } else {
        if (!await_flag(s, &s->peer.blocks_complete, error) || !session_match_blocks(s, error)) {
            return false;
        }
        /*
         * Before anything is registered, because here the error can name a block that is not
         * writable.
         */
        s->blocks.scan = ram_scan_new(s->blocks.set, PRESENCE_WRITE, error);
        if (!s->blocks.scan) {
            return false;
        }
        session_post(s, MESSAGE_BLOCKS_REPLY, 0, 0, NULL, 0);
    }
    s->conn->blocks = s->blocks.wire;
    s->conn->block_count = vmf_ram_blocks_count(s->blocks.set);
    return true;
}

static bool set_up_ram(VmfSession *s, GError **error)
{
    if (!agree_on_blocks(s, error) || !s->ops->ram_setup(s->conn, error) ||
        !session_prepare_channels(s, error) || !session_start_channels(s, error)) {
        return false;
    }
    session_post(s, MESSAGE_READY, 0, 0, NULL, 0);
    return await_flag(s, &s->peer.ready, error);
}

static bool set_up_at_once(VmfSession *s, GError **error)
{
    if (!set_up_ram(s, error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    s->setup.done = true;
    g_mutex_unlock(&s->core.lock);
    return true;
}

static bool set_up(VmfSession *s, const VmfUri *uri, GError **error)
{
    if (!session_shake_hands(s, uri, error) || !session_start_control(s, error) ||
        !s->ops->open_channels(s->conn, error) || !session_open_file(s, error)) {
        return false;
    }
    if (!(session_ram_is_late(s) ? session_begin_late(s, error) : set_up_at_once(s, error))) {
        return false;
    }
    if (s->role == VMF_ROLE_DESTINATION) {
        listening_add(s);
    }
    return true;
}

/* --- the stream --- */

static bool put_stream(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error)
{
    VmfSession *s = opaque;

    (void)position;
    (void)flags;
    if (s->role == VMF_ROLE_SOURCE && !session_fence(s, error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    for (unsigned i = 0; i < iovcnt; i++) {
        const uint8_t *at = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left && !s->core.error && !s->streams.out_ended) {
            size_t part = MIN(left, stream_room(&s->streams.out_ring));

            if (!part) {
                g_cond_wait(&s->core.changed, &s->core.lock);
                continue;
            }
            stream_put(&s->streams.out_ring, at, part, s->streams.out_sync);
            s->streams.bytes += part;
            at += part;
            left -= part;
            session_wake_control_locked(s);
        }
    }
    if (s->core.error || s->streams.out_ended) {
        g_mutex_unlock(&s->core.lock);
        return session_report(s, error);
    }
    g_mutex_unlock(&s->core.lock);
    return true;
}

/* Tells the sender what was taken, if that is worth a message. */
static void took(VmfSession *s)
{
    uint64_t consumed;
    bool tell;

    g_mutex_lock(&s->core.lock);
    consumed = s->streams.in_ring.tail;
    tell = consumed + STREAM_RING - s->streams.in_credit_told >= CREDIT_STEP;
    if (tell) {
        s->streams.in_credit_told = consumed + STREAM_RING;
    }
    g_mutex_unlock(&s->core.lock);
    if (tell) {
        session_post(s, MESSAGE_STREAM_CREDIT, 0, consumed, NULL, 0);
    }
}

static bool settle(VmfSession *s, GError **error)
{
    uint64_t all;

    g_mutex_lock(&s->core.lock);
    all = s->streams.out_ring.head;
    while (!s->core.error && s->streams.out_ring.tail < all) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    g_mutex_unlock(&s->core.lock);
    session_post(s, MESSAGE_SETTLE, 0, all, NULL, 0);
    g_mutex_lock(&s->core.lock);
    while (!s->core.error && s->streams.settled < all) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    g_mutex_unlock(&s->core.lock);
    return !session_failed(s) || session_report(s, error);
}

/* --- the hand-over --- */

/* Sends all that is left, once. The destination takes its channels down after that. */
static bool send_rest(VmfSession *s, GError **error)
{
    bool ended;

    g_mutex_lock(&s->core.lock);
    ended = s->streams.out_ended;
    g_mutex_unlock(&s->core.lock);
    if (!ended && !session_flush_last(s, error)) {
        return false;
    }
    session_end_stream(s);
    return true;
}

static bool await_loaded(VmfSession *s, GError **error)
{
    bool loaded;

    if (!send_rest(s, error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    while (!s->core.error && s->peer.handover.state == HANDOVER_KEEPS) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    loaded = !s->core.error && s->peer.handover.state != HANDOVER_KEEPS;
    g_mutex_unlock(&s->core.lock);
    return loaded || session_outcome(s, error);
}

static bool complete_source(VmfSession *s, GError **error)
{
    if (!send_rest(s, error)) {
        return false;
    }
    session_event(s, HANDOVER_COMPLETE); /* too late if it has failed */
    g_mutex_lock(&s->core.lock);
    while (!handover_over(&s->peer.handover)) { /* the control thread does the rest */
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    g_mutex_unlock(&s->core.lock);
    return session_outcome(s, error);
}

/* Waits until the source has said GO, or that it never will, here or over another connection. */
static void await_word(VmfSession *s)
{
    g_mutex_lock(&s->core.lock);
    while (!handover_over(&s->peer.handover)) {
        /* The source may notice the loss up to a time-out later, and then asks for as long. */
        const gint64 end = s->peer.answer_since + 2 * (gint64)s->conn->timeout_ms * 1000;

        if (s->peer.handover.state != HANDOVER_WAITS) {
            g_cond_wait(&s->core.changed, &s->core.lock);
        } else if (!g_cond_wait_until(&s->core.changed, &s->core.lock, end)) {
            session_event_locked(s, HANDOVER_TIME_UP);
        }
    }
    g_mutex_unlock(&s->core.lock);
}

static bool complete_destination(VmfSession *s, GError **error)
{
    if (!session_end_reading(s, error)) {
        return false;
    }
    session_event(s, HANDOVER_COMPLETE); /* too late if it has failed */
    listening_answer(s);                 /* GO may have to come over another connection */
    await_word(s);
    return session_outcome(s, error);
}

/* --- the table --- */

/* Both directions exist from the beginning. */
static bool open_back(VmfSession *s, GError **error)
{
    (void)s;
    (void)error;
    return true;
}

static void close_peer(VmfSession *s)
{
    (void)s;
}

const SessionPeerOps session_native_peer = {
    .source_is_unsure =
        "the destination was told to run the VM, but has not confirmed it, and could not be asked: "
        "outcome unknown. This side must not run the VM. Look whether the destination runs it; "
        "only "
        "if it does not and never will, run it here",
    .set_up = set_up,
    .set_up_ram = set_up_ram,
    .put_stream = put_stream,
    .save_ram = session_save_ram,
    .took = took,
    .settle = settle,
    .await_loaded = await_loaded,
    .complete_source = complete_source,
    .complete_destination = complete_destination,
    .open_back = open_back,
    .close = close_peer,
};
