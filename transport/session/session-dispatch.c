/* SPDX-License-Identifier: BSD-2-Clause */
/* session-dispatch.c -- what each control message does when it arrives */

#include "session-dispatch.h"

#include <string.h>

#include "session-outcome.h"
#include "session-revoke.h"
#include "session-settle.h"
#include "session-waking.h"
#include "session-device.h"
#include "session-blocks.h"
#include "session-late-ram.h"

static bool out_of_place(const MessageHeader *header, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s message at the wrong time",
                message_name(header->type));
    return false;
}

static bool handle_error(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                         GError **error)
{
    g_autofree char *text = message_error_text(payload, header->length);
    /* These codes mean the same on both sides. Any other is the peer's own trouble. */
    const bool shared = header->argument == VMF_ERROR_CANCELLED ||
                        header->argument == VMF_ERROR_MISMATCH ||
                        header->argument == VMF_ERROR_MEMLOCK;

    s->control.from_peer = true;
    g_set_error(error, VMF_ERROR, shared ? (int)header->argument : VMF_ERROR_PEER,
                "the peer (%s) reported: %s", s->conn->peer, text);
    return false;
}

static bool handle_blocks(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                          GError **error)
{
    if (s->peer.blocks_complete || header->argument != s->peer.blocks->len) {
        return out_of_place(header, error);
    }
    if (!session_take_blocks(s, header, payload, error)) {
        return false;
    }
    session_late_ram_due(s);
    return true;
}

static bool syncs_can_come(VmfSession *s, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = session_syncs_can_come_locked(s, error);
    g_mutex_unlock(&s->core.lock);
    return ok;
}

static bool handle_stream(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                          GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = !s->streams.in_ended && header->length <= stream_room(&s->streams.in_ring) &&
         (s->role == VMF_ROLE_DESTINATION || header->argument == 0);
    if (ok) {
        stream_put(&s->streams.in_ring, payload, header->length, header->argument);
        session_update_readable_locked(s);
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    if (!ok) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "%u stream bytes that may not be sent: after the end, beyond the credit, or "
                    "with a sync on the return path",
                    header->length);
    }
    return ok && syncs_can_come(s, error);
}

static bool handle_credit(VmfSession *s, const MessageHeader *header, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = header->argument >= s->streams.out_credit - STREAM_RING &&
         header->argument <= s->streams.out_ring.tail;
    if (ok) {
        s->streams.out_credit = header->argument + STREAM_RING;
    }
    g_mutex_unlock(&s->core.lock);
    return ok || out_of_place(header, error);
}

/*
 * The source asks whether its stream is here and can be read. The question comes after the stream,
 * so the stream is here. RAM may still be missing.
 */
static bool handle_settle(VmfSession *s, const MessageHeader *header, GError **error)
{
    if (header->argument != s->streams.in_ring.head) { /* only this thread puts into the ring */
        return out_of_place(header, error);
    }
    g_mutex_lock(&s->core.lock);
    s->streams.settle_asked = true;
    g_mutex_unlock(&s->core.lock);
    session_answer_settle(s);
    return true;
}

static bool handle_settled(VmfSession *s, const MessageHeader *header, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = header->argument <= s->streams.out_ring.tail && header->argument >= s->streams.settled;
    if (ok) {
        s->streams.settled = header->argument;
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    return ok || out_of_place(header, error);
}

static bool handle_stream_end(VmfSession *s, const MessageHeader *header, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = !s->streams.in_ended;
    s->streams.in_ended = true;
    s->streams.final_sync = header->argument;
    session_update_readable_locked(s);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return ok ? syncs_can_come(s, error) : out_of_place(header, error);
}

/* For a message that comes once: sets *flag if `allowed'. */
static bool set_flag(VmfSession *s, const MessageHeader *header, bool *flag, bool allowed,
                     GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = allowed && !*flag;
    *flag = true;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return ok || out_of_place(header, error);
}

/* LOADED, GO, GO_SEEN, BYE. */
static bool handle_hand_over(VmfSession *s, const MessageHeader *header, HandoverEvent event,
                             GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    /* LOADED may come only after everything was sent. */
    ok =
        (event != HANDOVER_GOT_LOADED || s->streams.out_end_sent) && session_event_locked(s, event);
    g_mutex_unlock(&s->core.lock);
    return ok || out_of_place(header, error);
}

/* Whether a message matters after a failure: it tells who owns the VM. */
static bool matters_after_failure(unsigned type)
{
    return type == MESSAGE_ERROR || type == MESSAGE_LOADED || type == MESSAGE_GO ||
           type == MESSAGE_GO_SEEN || type == MESSAGE_BYE;
}

bool session_dispatch(VmfSession *s, const uint8_t *message, size_t size, GError **error)
{
    VmfRole sender = s->role == VMF_ROLE_SOURCE ? VMF_ROLE_DESTINATION : VMF_ROLE_SOURCE;
    const uint8_t *payload = message + MESSAGE_HEADER_BYTES;
    MessageHeader header;

    if (!message_header_decode(message, size, sender, &header, error)) {
        return false;
    }
    if (session_failed(s) && !matters_after_failure(header.type)) {
        return true;
    }
    if (header.type >= VMF_MESSAGE_PRIVATE) {
        return s->ops->control_message(s->conn, header.type, payload, header.length, error);
    }
    switch ((MessageType)header.type) {
    case MESSAGE_ERROR:
        return handle_error(s, &header, payload, error);
    case MESSAGE_HEARTBEAT:
        return true;
    case MESSAGE_BLOCKS:
        return handle_blocks(s, &header, payload, error);
    case MESSAGE_BLOCKS_REPLY:
        return set_flag(s, &header, &s->peer.blocks_agreed, true, error);
    case MESSAGE_READY:
        return set_flag(s, &header, &s->peer.ready, true, error);
    case MESSAGE_STREAM:
        return handle_stream(s, &header, payload, error);
    case MESSAGE_STREAM_CREDIT:
        return handle_credit(s, &header, error);
    case MESSAGE_STREAM_END:
        return handle_stream_end(s, &header, error);
    case MESSAGE_DEVICE_WINDOW:
    case MESSAGE_SWITCHOVER_START:
    case MESSAGE_DEVICE_CREDIT:
        return s->device_ops->message(s, &header, payload, error);
    case MESSAGE_LOADED:
        return handle_hand_over(s, &header, HANDOVER_GOT_LOADED, error);
    case MESSAGE_GO:
        return handle_hand_over(s, &header, HANDOVER_GOT_GO, error);
    case MESSAGE_GO_SEEN:
        return handle_hand_over(s, &header, HANDOVER_GOT_GO_SEEN, error);
    case MESSAGE_BYE:
        return handle_hand_over(s, &header, HANDOVER_GOT_BYE, error);
    case MESSAGE_SETTLE:
        return handle_settle(s, &header, error);
    case MESSAGE_SETTLED:
        return handle_settled(s, &header, error);
    case MESSAGE_HELLO:
    case MESSAGE_HELLO_REPLY:
    case MESSAGE_ASK:
    case MESSAGE_ANSWER:
        break;
    }
    return out_of_place(&header, error);
}
