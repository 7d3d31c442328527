/* SPDX-License-Identifier: BSD-2-Clause */
/* session-control.c -- the control thread: all messages in and out, heartbeats, deadlines */

#include "session-control.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "session-answer.h"
#include "session-ask.h"
#include "session-core.h"
#include "session-dispatch.h"
#include "session-waking.h"

/* How long a failed session tries to tell its peer why. */
#define LAST_WORDS_US (500 * G_TIME_SPAN_MILLISECOND)
/* How long a session that is freed tries to send what its peer does not take. */
#define STOP_US (2 * G_TIME_SPAN_SECOND)
/* So many messages are read before this side looks at its own work again. */
#define TURN_MESSAGES 256

/* --- sending: the control thread --- */

static VmfControlResult send_message(VmfSession *s, const MessageHeader *header,
                                     const void *payload, GError **error)
{
    uint8_t bytes[MESSAGE_HEADER_BYTES];
    const struct iovec iov[] = {{.iov_base = bytes, .iov_len = sizeof(bytes)},
                                {.iov_base = (void *)payload, .iov_len = header->length}};
    VmfControlResult result;

    message_header_encode(header, bytes);
    result = s->ops->control_send(s->conn, iov, header->length ? 2 : 1, error);
    if (result == VMF_CONTROL_DONE) {
        s->control.last_sent = g_get_monotonic_time();
    }
    return result;
}

/*
 * Sends the hand-over's next message; EOF means that there is none. Taking GO makes it irrevocable,
 * because nobody can know what the transport does with it. It is taken under the lock that a
 * failure needs, too.
 */
static VmfControlResult send_hand_over(VmfSession *s, GError **error)
{
    MessageHeader header = {0};
    VmfControlResult result;

    if (!s->control.owed) {
        g_mutex_lock(&s->core.lock);
        s->control.owed = handover_take(&s->peer.handover);
        s->peer.answer_since = s->control.owed ? g_get_monotonic_time() : s->peer.answer_since;
        g_cond_broadcast(&s->core.changed);
        g_mutex_unlock(&s->core.lock);
    }
    if (!s->control.owed) {
        return VMF_CONTROL_EOF;
    }
    header.type = s->control.owed;
    result = send_message(s, &header, NULL, error);
    if (result == VMF_CONTROL_DONE) {
        s->control.owed = 0;
    }
    return result;
}

/* Sends the oldest queued message; EOF means that there is none. */
static VmfControlResult send_queued(VmfSession *s, GError **error)
{
    OutMessage *message;
    VmfControlResult result;

    g_mutex_lock(&s->core.lock);
    message = g_queue_peek_head(&s->outbox.messages);
    g_mutex_unlock(&s->core.lock);
    if (!message) {
        return VMF_CONTROL_EOF;
    }
    result = send_message(s, &message->header, message->payload, error);
    if (result == VMF_CONTROL_DONE) {
        g_mutex_lock(&s->core.lock);
        g_queue_pop_head(&s->outbox.messages); /* others only append */
        g_mutex_unlock(&s->core.lock);
        g_free(message->payload);
        g_free(message);
    }
    return result;
}

/* Sends a piece of the stream, within the peer's credit; EOF means that there is none. */
static VmfControlResult send_stream(VmfSession *s, GError **error)
{
    MessageHeader header = {.type = MESSAGE_STREAM};
    const uint8_t *data;
    VmfControlResult result;
    size_t most, size;

    g_mutex_lock(&s->core.lock);
    most = (size_t)MIN(s->streams.out_credit - s->streams.out_ring.tail,
                       s->conn->control_max - MESSAGE_HEADER_BYTES);
    size = s->streams.out_ring.head == s->streams.out_ring.tail
               ? 0
               : stream_piece(&s->streams.out_ring, most, &data, &header.argument);
    if (!size && s->streams.out_ended && !s->streams.out_end_sent &&
        s->streams.out_ring.head == s->streams.out_ring.tail) {
        header = (MessageHeader){.type = MESSAGE_STREAM_END, .argument = s->streams.sync_number};
    } else if (!size) {
        g_mutex_unlock(&s->core.lock);
        return VMF_CONTROL_EOF;
    }
    g_mutex_unlock(&s->core.lock);
    /* The piece stays in its place, because only this thread takes from the ring. */
    header.length = (uint32_t)size;
    result = send_message(s, &header, size ? data : NULL, error);
    if (result == VMF_CONTROL_DONE) {
        g_mutex_lock(&s->core.lock);
        if (size) {
            stream_take(&s->streams.out_ring, NULL, size);
        } else {
            s->streams.out_end_sent = true;
        }
        g_cond_broadcast(&s->core.changed);
        g_mutex_unlock(&s->core.lock);
    }
    return result;
}

/* Sends all that can be sent now. *blocked: the transport takes no more. */
static bool send_all(VmfSession *s, bool *blocked, GError **error)
{
    *blocked = false;
    for (;;) {
        VmfControlResult result = send_hand_over(s, error);

        /* A failed session sends nothing else. */
        if (result == VMF_CONTROL_EOF && !session_failed(s)) {
            result = send_queued(s, error);
        }
        if (result == VMF_CONTROL_EOF && !session_failed(s)) {
            result = send_stream(s, error);
        }
        if (result == VMF_CONTROL_EOF) {
            return true;
        }
        if (result == VMF_CONTROL_AGAIN) {
            *blocked = true;
            return true;
        }
        if (result == VMF_CONTROL_ERROR) {
            return false;
        }
    }
}

/* --- receiving --- */

/* Reads a turn of messages. *more: there may be more, but this side's own work comes first. */
static bool receive_some(VmfSession *s, bool *more, GError **error)
{
    const uint8_t *message;
    size_t size;

    *more = false;
    for (unsigned turn = 0; turn < TURN_MESSAGES; turn++) {
        switch (s->ops->control_receive(s->conn, &message, &size, error)) {
        case VMF_CONTROL_DONE:
            s->control.last_heard = g_get_monotonic_time();
            if (!session_dispatch(s, message, size, error)) {
                s->control.lost = false;
                return false;
            }
            break;
        case VMF_CONTROL_AGAIN:
            return true;
        case VMF_CONTROL_EOF:
            s->control.ended = true;
            g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "%s closed the connection before the migration was complete",
                        s->conn->peer);
            return false;
        default:
            return false;
        }
    }
    *more = true;
    return true;
}

/* --- time --- */

/*
 * The time by which the peer must have done something, although it shows signs of life. That is the
 * set-up, or an answer in the hand-over, which its control thread gives. G_MAXINT64: there is none.
 */
static gint64 deadline_of(VmfSession *s, const char **what)
{
    gint64 deadline = G_MAXINT64;

    g_mutex_lock(&s->core.lock);
    if (!s->setup.done) {
        deadline = s->setup.deadline;
        *what = "the set-up was not complete (the time for it is the option connect-timeout=, and "
                "more for large RAM)";
    } else if (handover_answer_is_due(&s->peer.handover)) {
        deadline = s->peer.answer_since + (gint64)s->conn->timeout_ms * 1000;
        *what = s->role == VMF_ROLE_SOURCE ? "GO was not confirmed" : "LOADED was not answered";
    }
    g_mutex_unlock(&s->core.lock);
    return deadline;
}

/* *blocked becomes true also if the transport does not take a heartbeat that is due. */
static bool check_time(VmfSession *s, bool *blocked, GError **error)
{
    gint64 now = g_get_monotonic_time();
    const char *what = NULL;

    if (now - s->control.last_heard >= (gint64)s->conn->timeout_ms * 1000) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "no sign of life from %s for %.1f s: the host, the process or the link is "
                    "down (the time-out is the option timeout=)",
                    s->conn->peer, s->conn->timeout_ms / 1000.0);
        return false;
    }
    if (now >= deadline_of(s, &what)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT, "%s lives, but %s in time", s->conn->peer,
                    what);
        return false;
    }
    if (!*blocked && now - s->control.last_sent >= (gint64)s->conn->heartbeat_ms * 1000) {
        const MessageHeader heartbeat = {.type = MESSAGE_HEARTBEAT};
        VmfControlResult result = send_message(s, &heartbeat, NULL, error);

        *blocked = result == VMF_CONTROL_AGAIN; /* room for it comes as for any message */
        return result != VMF_CONTROL_ERROR;
    }
    return true;
}

static gint64 stop_deadline(VmfSession *s)
{
    gint64 deadline;

    g_mutex_lock(&s->core.lock);
    deadline = s->outbox.stop ? s->outbox.stopped_at + STOP_US : G_MAXINT64;
    g_mutex_unlock(&s->core.lock);
    return deadline;
}

static int sleep_ms(VmfSession *s, bool blocked)
{
    const char *what;
    gint64 beat = s->control.last_sent + (gint64)s->conn->heartbeat_ms * 1000;
    gint64 deaf = s->control.last_heard + (gint64)s->conn->timeout_ms * 1000;
    gint64 end = MIN(MIN(deaf, deadline_of(s, &what)), stop_deadline(s));
    gint64 left = (blocked ? end : MIN(beat, end)) - g_get_monotonic_time();

    return left <= 0 ? 0 : (int)(left / 1000) + 1;
}

/* --- the thread --- */

static bool something_to_do_locked(VmfSession *s)
{
    if (s->outbox.stop || s->peer.handover.owes ||
        (s->core.error && !handover_needs_connection(&s->peer.handover))) {
        return true;
    }
    if (s->core.error) {
        return false;
    }
    return !g_queue_is_empty(&s->outbox.messages) ||
           (s->streams.out_ring.head != s->streams.out_ring.tail &&
            s->streams.out_credit != s->streams.out_ring.tail) ||
           (s->streams.out_ended && !s->streams.out_end_sent &&
            s->streams.out_ring.head == s->streams.out_ring.tail);
}

static bool doze(VmfSession *s, bool blocked, GError **error)
{
    uint64_t count;
    bool ok;

    g_mutex_lock(&s->core.lock);
    /* A blocked thread waits for the transport, and not to be woken. */
    s->outbox.sleeping = blocked || !something_to_do_locked(s);
    ok = !s->outbox.sleeping;
    g_mutex_unlock(&s->core.lock);
    if (ok) {
        return true;
    }
    ok = s->ops->control_wait(s->conn, s->outbox.wake_fd, blocked, sleep_ms(s, blocked), error);
    (void)!read(s->outbox.wake_fd, &count, sizeof(count));
    g_mutex_lock(&s->core.lock);
    s->outbox.sleeping = false;
    g_mutex_unlock(&s->core.lock);
    return ok;
}

/* Whether the thread may end: all is sent, or the session has failed or is freed. */
static bool is_through(VmfSession *s, bool blocked)
{
    const gint64 now = g_get_monotonic_time();
    bool through;

    g_mutex_lock(&s->core.lock);
    through = (s->outbox.stop && (!blocked || now >= s->outbox.stopped_at + STOP_US)) ||
              (s->core.error && !s->control.owed && !handover_needs_connection(&s->peer.handover));
    g_mutex_unlock(&s->core.lock);
    return through;
}

static bool run(VmfSession *s, GError **error)
{
    bool blocked = false, more;

    while (!session_failed(s) || !is_through(s, blocked)) {
        s->control.lost = true;
        if (!receive_some(s, &more, error) || !send_all(s, &blocked, error) ||
            !check_time(s, &blocked, error)) {
            return false;
        }
        if (is_through(s, blocked)) {
            break;
        }
        if (!more && !doze(s, blocked, error)) {
            return false;
        }
    }
    return true;
}

/* Drops what has come, because that may give room to send. Returns false at the end. */
static bool drop_received(VmfSession *s, gint64 deadline)
{
    const uint8_t *message;
    VmfControlResult result;
    size_t size;

    do {
        result = s->ops->control_receive(s->conn, &message, &size, NULL);
    } while (result == VMF_CONTROL_DONE && g_get_monotonic_time() < deadline);
    return result == VMF_CONTROL_DONE || result == VMF_CONTROL_AGAIN;
}

/*
 * Sends the reason, if the hand-over has failed here for good: this side never gives or gets the VM
 * after it.
 */
static bool say_last_words(VmfSession *s)
{
    gint64 deadline = g_get_monotonic_time() + LAST_WORDS_US;
    g_autoptr(GError) reason = NULL;
    MessageHeader header = {.type = MESSAGE_ERROR};
    VmfControlResult result;
    bool silent;

    g_mutex_lock(&s->core.lock);
    silent = !s->core.error || s->core.error_from_peer ||
             (s->peer.handover.state != HANDOVER_KEPT && s->peer.handover.state != HANDOVER_DENIED);
    reason = s->core.error ? g_error_copy(s->core.error) : NULL;
    g_mutex_unlock(&s->core.lock);
    if (silent) {
        return false;
    }
    header.argument = session_error_code(reason);
    header.length = (uint32_t)MIN(strlen(reason->message), 1024);
    do {
        result = send_message(s, &header, reason->message, NULL);
    } while (result == VMF_CONTROL_AGAIN && g_get_monotonic_time() < deadline &&
             drop_received(s, deadline) && s->ops->control_wait(s->conn, -1, true, 50, NULL));
    return result == VMF_CONTROL_DONE;
}

/*
 * Gives the error message time to reach the wire, because closing a connection drops what is not
 * sent. The peer closes when it has read it. Returns whether it has.
 */
static bool await_close(VmfSession *s)
{
    gint64 deadline = g_get_monotonic_time() + LAST_WORDS_US;

    while (g_get_monotonic_time() < deadline) {
        if (!drop_received(s, deadline) || !s->ops->control_wait(s->conn, -1, false, 50, NULL)) {
            return true;
        }
    }
    return false;
}

/* The reason may be lost with the link, so the source may ask over another connection. */
static void went_unheard(VmfSession *s)
{
    bool answers;

    g_mutex_lock(&s->core.lock);
    s->peer.lost_at = g_get_monotonic_time();
    answers = s->role == VMF_ROLE_DESTINATION && s->peer.handover.said_loaded;
    g_mutex_unlock(&s->core.lock);
    if (answers) {
        listening_answer(s);
    }
}

/* The connection cannot be used any more. */
static void end_by(VmfSession *s, GError *error)
{
    const bool from_peer = s->control.from_peer;
    bool answers;

    session_need_error(&error, "the control connection");
    if (!s->control.lost) {
        session_fail(s, g_error_copy(error), from_peer);
    }
    g_mutex_lock(&s->core.lock);
    s->outbox.over = true;
    /* A peer that was told, or has closed in good order, does not ask. */
    s->peer.lost_at = s->control.lost && !s->control.ended ? g_get_monotonic_time() : 0;
    answers = s->role == VMF_ROLE_DESTINATION && s->peer.lost_at;
    g_mutex_unlock(&s->core.lock);
    session_lost(s, error);
    if (answers) {
        listening_answer(s); /* the source may come to say that it keeps the VM */
    }
}

static void *control_main(void *opaque)
{
    VmfSession *s = opaque;
    GError *error = NULL;
    const bool whole = run(s, &error);

    if (!whole) {
        end_by(s, error);
    }
    if (session_failed(s) && (whole || !s->control.lost) && say_last_words(s) && !await_close(s)) {
        went_unheard(s);
    }
    g_mutex_lock(&s->core.lock);
    s->outbox.over = true;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    if (s->role == VMF_ROLE_SOURCE) {
        session_ask(s);
    }
    return NULL;
}

bool session_start_control(VmfSession *s, GError **error)
{
    g_autoptr(GError) failure = NULL;

    s->control.last_sent = s->control.last_heard = g_get_monotonic_time();
    s->control.thread = g_thread_try_new("vmf-control", control_main, s, &failure);
    if (!s->control.thread) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "cannot start the control thread: %s",
                    failure->message);
        s->outbox.over = true;
    }
    return s->control.thread != NULL;
}

void session_stop_control(VmfSession *s)
{
    if (!s->control.thread) {
        return;
    }
    g_mutex_lock(&s->core.lock);
    s->outbox.stop = true;
    s->outbox.stopped_at = g_get_monotonic_time();
    session_wake_control_locked(s);
    g_mutex_unlock(&s->core.lock);
    g_thread_join(g_steal_pointer(&s->control.thread));
}
