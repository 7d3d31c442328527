/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ask.c -- a source whose connection was lost in the hand-over asks over another one */

#include "session-ask.h"

#include <string.h>

#include "base/cancel-fd.h"
#include "session-direct.h"
#include "session-host.h"
#include "session-outcome.h"

/* How long the destination may take to close the connection. */
#define BYE_US G_USEC_PER_SEC
/* The fewest attempts, if each of them hangs, and the shortest time of an attempt. */
#define ATTEMPTS 6
#define ATTEMPT_MIN_MS 500
/* The pause between two attempts. */
#define AGAIN_US (100 * G_TIME_SPAN_MILLISECOND)

static bool wants_to_know_locked(const VmfSession *s)
{
    return s->peer.handover.state == HANDOVER_ASKS;
}

/* Whether the destination waits for a BYE that was lost. */
static bool wants_to_confirm_locked(const VmfSession *s)
{
    return s->peer.handover.state == HANDOVER_GAVE && s->peer.lost_at &&
           (s->control.owed == MESSAGE_BYE || s->peer.handover.owes);
}

/* Whether the destination may have said LOADED, and wait for a GO that never comes. */
static bool wants_to_tell_locked(const VmfSession *s)
{
    return s->peer.handover.state == HANDOVER_KEPT && s->streams.out_end_sent && s->peer.lost_at &&
           !s->core.error_from_peer;
}

static HandoverEvent told(HandoverAnswer answer)
{
    switch (answer) {
    case HANDOVER_ANSWER_MINE:
        return HANDOVER_TOLD_MINE;
    case HANDOVER_ANSWER_DENIED:
        return HANDOVER_TOLD_DENIED;
    case HANDOVER_ANSWER_UNSURE:
        break;
    }
    return HANDOVER_TOLD_UNSURE;
}

/*
 * The destination closes the connection when it has read BYE. If this side closed first, BYE might
 * be lost.
 */
static void say_bye(Direct d)
{
    const uint8_t *payload;
    MessageHeader header;

    d.deadline = MIN(d.deadline, g_get_monotonic_time() + BYE_US);
    direct_send(&d, MESSAGE_BYE, 0, NULL, 0, NULL);
    while (g_get_monotonic_time() < d.deadline && !g_cancellable_is_cancelled(d.cancel) &&
           direct_receive(&d, VMF_ROLE_DESTINATION, &header, &payload, NULL)) {
    }
}

static bool converse(const Direct *d, VmfSession *s, GError **error)
{
    const uint8_t *payload;
    MessageHeader header;
    uint64_t say;

    g_mutex_lock(&s->core.lock);
    say = wants_to_tell_locked(s) ? MESSAGE_ASK_GO_NEVER : MESSAGE_ASK_GO_SENT;
    g_mutex_unlock(&s->core.lock);
    if (!direct_send(d, MESSAGE_ASK, say, s->conn->uuid, VMF_UUID_BYTES, error) ||
        !direct_receive(d, VMF_ROLE_DESTINATION, &header, &payload, error)) {
        return false;
    }
    if (header.type != MESSAGE_ANSWER || header.argument < HANDOVER_ANSWER_MINE ||
        header.argument > HANDOVER_ANSWER_UNSURE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "%s instead of ANSWER from %s",
                    message_name(header.type), d->conn->peer);
        return false;
    }
    session_event(s, told((HandoverAnswer)header.argument)); /* ignored if this side only tells */
    say_bye(*d);
    return true;
}

/*
 * An attempt that begins while the link is down may hang on a name or a packet that is sent only
 * once. So each attempt gets a part of the time.
 */
static VmfUri *hasty_uri(const VmfSession *s)
{
    const uint64_t part_ms = MIN(MAX(s->conn->timeout_ms / ATTEMPTS, ATTEMPT_MIN_MS),
                                 vmf_uri_get_uint(s->reach.uri, "connect-timeout"));
    g_autofree char *value = g_strdup_printf("%" G_GUINT64_FORMAT "ms", part_ms);
    g_autoptr(VmfUri) uri = vmf_uri_parse(vmf_uri_text(s->reach.uri), NULL);

    return uri && vmf_uri_set(uri, "connect-timeout", value, NULL) ? g_steal_pointer(&uri)
                                                                   : vmf_uri_ref(s->reach.uri);
}

/* Makes one attempt. */
static bool ask_once(VmfSession *s, const VmfUri *uri, int cancel_fd, gint64 deadline,
                     GError **error)
{
    VmfConn *conn =
        direct_usable(s->reach.connect_ops->connect(uri, s->conn->uuid, s->core.asking, error),
                      s->reach.connect_ops, error);
    Direct d = {.conn = conn,
                .cancel = s->core.asking,
                .cancel_fd = cancel_fd,
                .deadline = deadline,
                .what = "asking it who owns the VM"};
    bool ok;

    if (!conn) {
        return false;
    }
    if (!conn->ops) {
        conn->ops = s->reach.connect_ops;
    }
    d.ops = conn->ops;
    conn->role = VMF_ROLE_SOURCE;
    conn->host = &session_host;
    conn->session = s;
    conn->cancel = s->core.asking;
    conn->cancel_fd = cancel_fd;
    conn->timeout_ms = s->conn->timeout_ms;
    conn->heartbeat_ms = s->conn->heartbeat_ms;
    memcpy(conn->uuid, s->conn->uuid, VMF_UUID_BYTES);
    ok = !conn->foreign && converse(&d, s, error);
    conn->ops->close(conn);
    return ok;
}

/* Waits a little. Returns false when the time is over or nobody wants the answer any more. */
static bool try_again(VmfSession *s, gint64 deadline)
{
    const gint64 next = g_get_monotonic_time() + AGAIN_US;
    bool again;

    g_mutex_lock(&s->core.lock);
    while (!s->core.hurry && g_get_monotonic_time() < next &&
           g_cond_wait_until(&s->core.changed, &s->core.lock, next)) {
    }
    again = !s->core.hurry && g_get_monotonic_time() < deadline;
    g_mutex_unlock(&s->core.lock);
    return again;
}

void session_ask(VmfSession *s)
{
    gint64 deadline;
    int cancel_fd = -1;
    bool needed;

    g_mutex_lock(&s->core.lock);
    needed = !s->core.hurry &&
             (wants_to_know_locked(s) || wants_to_confirm_locked(s) || wants_to_tell_locked(s));
    deadline = g_get_monotonic_time() + (gint64)s->conn->timeout_ms * 1000;
    g_mutex_unlock(&s->core.lock);
    if (needed && (cancel_fd = cancel_fd_get(s->core.asking)) >= 0) {
        g_autoptr(VmfUri) uri = hasty_uri(s);
        bool done;

        do {
            g_autoptr(GError) failure = NULL;

            done = ask_once(s, uri, cancel_fd, deadline, &failure);
            if (!done) {
                g_debug("no answer to the question: %s", failure ? failure->message : "no reason");
            }
        } while (!done && try_again(s, deadline));
        g_cancellable_release_fd(s->core.asking);
    }
    session_event(s, HANDOVER_TIME_UP); /* ignored if there is an answer */
}
