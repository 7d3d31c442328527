/* SPDX-License-Identifier: BSD-2-Clause */
/* session-answer.c -- a destination's listener, and the answers for a source that asks */

#include "session-answer.h"

#include <string.h>

#include "session-core.h"
#include "session-direct.h"
#include "session-host.h"
#include "session-outcome.h"

/* How long a peer that connects may take to say why. Peers are served one after the other. */
#define SPEAK_US G_USEC_PER_SEC
/* How long the transport's listener is left alone after it failed. */
#define PAUSE_US (200 * G_TIME_SPAN_MILLISECOND)
/* Answers that are kept of sessions that have ended; the oldest makes room. */
#define KEPT_MAX 64
/* Connections that are kept of sources that came while nobody accepted. */
#define EARLY_MAX 16

struct Answer {
    uint8_t uuid[VMF_UUID_BYTES];
    VmfSession *session; /* NULL: it has ended, as `handover' says */
    Handover handover;
    bool needed; /* a source may ask for it */
};

typedef struct Early {
    VmfConn *conn;
    GBytes *first; /* its first message; NULL if it is foreign */
} Early;

struct Listening {
    gatomicrefcount references;
    VmfUri *uri;
    const VmfTransport *ops;
    VmfTransportListener *transport; /* of the thread that has claimed it, or else of `thread' */

    /* This lock is taken before a session's lock. */
    GMutex lock;
    GCond changed; /* of anything below */
    bool owned;    /* there is a VmfListener */
    unsigned claims;
    GPtrArray *answers; /* Answer */
    GQueue early;       /* Early */
    GThread *thread;
    unsigned turn; /* of the thread that may serve; an older one ends */
    bool running;
    GCancellable *pause; /* ends an accept of `thread'; NULL: it does not use `transport' */
};

/* --- its life --- */

Listening *listening_new(const VmfUri *uri, GError **error)
{
    const VmfTransport *ops = vmf_transport_find(vmf_uri_scheme(uri), error);
    VmfTransportListener *transport = ops ? ops->listen(uri, error) : NULL;
    Listening *l;

    if (!transport) {
        return NULL;
    }
    l = g_new0(Listening, 1);
    g_atomic_ref_count_init(&l->references);
    l->uri = vmf_uri_ref((VmfUri *)uri);
    l->ops = ops;
    l->transport = transport;
    l->owned = true;
    l->answers = g_ptr_array_new_with_free_func(g_free);
    g_mutex_init(&l->lock);
    g_cond_init(&l->changed);
    return l;
}

const VmfUri *listening_uri(const Listening *l)
{
    return l->uri;
}

const VmfTransport *listening_ops(const Listening *l)
{
    return l->ops;
}

VmfTransportListener *listening_transport(const Listening *l)
{
    return l->transport;
}

Listening *listening_ref(Listening *l)
{
    g_atomic_ref_count_inc(&l->references);
    return l;
}

static void early_free(Early *early)
{
    early->conn->ops->close(early->conn);
    g_clear_pointer(&early->first, g_bytes_unref);
    g_free(early);
}

void listening_unref(Listening *l)
{
    if (!l || !g_atomic_ref_count_dec(&l->references)) {
        return;
    }
    l->ops->listener_free(l->transport);
    g_ptr_array_unref(l->answers);
    vmf_uri_unref(l->uri);
    g_cond_clear(&l->changed);
    g_mutex_clear(&l->lock);
    g_free(l);
}

/* --- answering --- */

static Answer *find_locked(const Listening *l, const uint8_t uuid[VMF_UUID_BYTES])
{
    for (unsigned i = 0; i < l->answers->len; i++) {
        Answer *answer = l->answers->pdata[i];
        if (memcmp(answer->uuid, uuid, VMF_UUID_BYTES) == 0) {
            return answer;
        }
    }
    return NULL;
}

/* What the source says may decide the hand-over here. The answer is what holds after that. */
static HandoverAnswer tell_session(VmfSession *s, HandoverEvent event)
{
    HandoverAnswer answer;

    if (event == HANDOVER_TOLD_KEPT) {
        session_fail_as(s,
                        g_error_new(VMF_ERROR, VMF_ERROR_PEER,
                                    "the source (%s) has not said GO, and keeps the VM",
                                    s->conn->peer),
                        event);
    } else {
        session_event(s, event);
    }
    g_mutex_lock(&s->core.lock);
    answer = handover_answer(&s->peer.handover);
    g_mutex_unlock(&s->core.lock);
    return answer;
}

static HandoverAnswer tell(Listening *l, const uint8_t uuid[VMF_UUID_BYTES], HandoverEvent event)
{
    HandoverAnswer result = HANDOVER_ANSWER_UNSURE;
    Answer *answer;

    g_mutex_lock(&l->lock);
    answer = find_locked(l, uuid);
    if (answer && answer->session) {
        result = tell_session(answer->session, event);
    } else if (answer) {
        handover_event(&answer->handover, event);
        result = handover_answer(&answer->handover);
    }
    g_mutex_unlock(&l->lock);
    return result;
}

/* The source has the answer, so nobody has to wait for its question any more. */
static void told(Listening *l, const uint8_t uuid[VMF_UUID_BYTES])
{
    Answer *answer;

    g_mutex_lock(&l->lock);
    answer = find_locked(l, uuid);
    if (answer && answer->session) {
        g_mutex_lock(&answer->session->core.lock);
        answer->session->peer.handover.known = true;
        g_cond_broadcast(&answer->session->core.changed);
        g_mutex_unlock(&answer->session->core.lock);
    } else if (answer) {
        g_ptr_array_remove(l->answers, answer);
    }
    g_mutex_unlock(&l->lock);
}

void listening_asked(Listening *l, const Direct *d, const MessageHeader *header,
                     const uint8_t *payload)
{
    uint8_t uuid[VMF_UUID_BYTES];
    Direct patient = *d;
    MessageHeader bye;
    HandoverAnswer answer;

    memcpy(uuid, payload, VMF_UUID_BYTES);
    if (header->argument != MESSAGE_ASK_GO_SENT && header->argument != MESSAGE_ASK_GO_NEVER) {
        return;
    }
    answer = tell(l, uuid,
                  header->argument == MESSAGE_ASK_GO_SENT ? HANDOVER_TOLD_GO : HANDOVER_TOLD_KEPT);
    patient.deadline = MIN(d->deadline, g_get_monotonic_time() + SPEAK_US);
    if (direct_send(&patient, MESSAGE_ANSWER, answer, NULL, 0, NULL) &&
        direct_receive(&patient, VMF_ROLE_SOURCE, &bye, &payload, NULL) &&
        bye.type == MESSAGE_BYE) {
        told(l, uuid);
    }
}

/* --- the thread --- */

static bool is_known(Answer *answer)
{
    bool known;

    if (!answer->session) {
        return answer->handover.known;
    }
    g_mutex_lock(&answer->session->core.lock);
    known = answer->session->peer.handover.known;
    g_mutex_unlock(&answer->session->core.lock);
    return known;
}

/* Whether a source may ask, or may come that has to hear that nobody accepts it. */
static bool thread_is_needed_locked(Listening *l)
{
    for (unsigned i = 0; i < l->answers->len; i++) {
        Answer *answer = l->answers->pdata[i];
        if ((answer->session && !l->owned) || (answer->needed && !is_known(answer))) {
            return true;
        }
    }
    return false;
}

/* Keeps a source that wants to migrate, because the listener's owner may accept it later. */
static bool keep_early(Listening *l, VmfConn *conn, const MessageHeader *header,
                       const uint8_t *payload)
{
    uint8_t bytes[MESSAGE_HEADER_BYTES];
    GByteArray *message = NULL;
    Early *early;
    bool keep;

    g_mutex_lock(&l->lock);
    keep = l->owned && g_queue_get_length(&l->early) < EARLY_MAX;
    if (keep) {
        early = g_new0(Early, 1);
        early->conn = conn;
        if (header) {
            message_header_encode(header, bytes);
            message = g_byte_array_new();
            g_byte_array_append(message, bytes, sizeof(bytes));
            g_byte_array_append(message, payload, header->length);
            early->first = g_byte_array_free_to_bytes(message);
        }
        g_queue_push_tail(&l->early, early);
    }
    g_mutex_unlock(&l->lock);
    return keep;
}

static void refuse(const Direct *d)
{
    static const char busy[] = "it has had its source, and accepts no other";

    direct_send(d, MESSAGE_ERROR, VMF_ERROR_REFUSED, busy, strlen(busy), NULL);
}

/* Refuses sources that were kept for an accept that will not come. */
static void turn_away(GQueue *early)
{
    Direct d = {.cancel_fd = -1, .what = "turning it away"};
    Early *one;

    d.deadline = g_get_monotonic_time() + SPEAK_US; /* for all of them together */
    while ((one = g_queue_pop_head(early))) {
        d.ops = one->conn->ops;
        d.conn = one->conn;
        if (one->first) {
            refuse(&d);
        }
        early_free(one);
    }
}

/* Reads what a peer wants. Returns whether its connection was kept. */
static bool hear(Listening *l, VmfConn *conn)
{
    const Direct d = {.ops = conn->ops,
                      .conn = conn,
                      .cancel_fd = -1, /* it is short, and an answer that has begun is finished */
                      .deadline = g_get_monotonic_time() + SPEAK_US,
                      .what = "asking it what it wants"};
    g_autoptr(GError) error = NULL;
    const uint8_t *payload;
    MessageHeader header;

    if (conn->foreign) {
        return keep_early(l, conn, NULL, NULL);
    }
    if (!direct_receive(&d, VMF_ROLE_SOURCE, &header, &payload, &error)) {
        g_debug("dropped a peer that did not greet: %s", error ? error->message : "no reason");
        return false;
    }
    if (header.type == MESSAGE_ASK) {
        listening_asked(l, &d, &header, payload);
        return false;
    }
    if (header.type == MESSAGE_HELLO && keep_early(l, conn, &header, payload)) {
        return true;
    }
    refuse(&d);
    return false;
}

/* Serves the next peer that connects. Returns false if the transport's listener has failed. */
static bool serve_one(Listening *l, GCancellable *cancel)
{
    g_autoptr(GError) error = NULL;
    VmfConn *conn = direct_usable(l->ops->accept(l->transport, cancel, &error), l->ops, &error);

    if (!conn) {
        g_debug("listening for questions: %s", error ? error->message : "no reason");
        return g_cancellable_is_cancelled(cancel);
    }
    conn->ops = conn->ops ? conn->ops : l->ops;
    conn->role = VMF_ROLE_DESTINATION;
    conn->host = &session_host;
    conn->timeout_ms = (uint32_t)vmf_uri_get_uint(l->uri, "timeout");
    conn->heartbeat_ms = conn->timeout_ms;
    conn->cancel_fd = -1;
    g_debug("%s connected while nobody accepts", conn->peer);
    if (!hear(l, conn)) {
        conn->ops->close(conn);
    }
    return true;
}

typedef struct Server {
    Listening *listening;
    unsigned turn;
} Server;

static void *answer_main(void *opaque)
{
    g_autofree Server *server = opaque;
    Listening *l = server->listening;

    g_mutex_lock(&l->lock);
    while (server->turn == l->turn && thread_is_needed_locked(l)) {
        bool ok;

        if (l->claims || l->pause) {
            g_cond_wait(&l->changed, &l->lock);
            continue;
        }
        l->pause = g_cancellable_new();
        g_mutex_unlock(&l->lock);
        ok = serve_one(l, l->pause);
        g_mutex_lock(&l->lock);
        g_clear_object(&l->pause);
        g_cond_broadcast(&l->changed);
        if (!ok) {
            g_cond_wait_until(&l->changed, &l->lock, g_get_monotonic_time() + PAUSE_US);
        }
    }
    if (server->turn == l->turn) {
        l->running = false;
    }
    g_mutex_unlock(&l->lock);
    return NULL;
}

/* Starts the thread if it is needed, or makes it end. */
static void update_locked(Listening *l)
{
    Server *server;

    if (l->pause && !thread_is_needed_locked(l)) {
        g_cancellable_cancel(l->pause);
    }
    g_cond_broadcast(&l->changed);
    if (l->running || !thread_is_needed_locked(l)) {
        return;
    }
    if (l->thread) {
        g_thread_join(l->thread); /* it takes the lock no more */
    }
    server = g_new(Server, 1);
    *server = (Server){.listening = l, .turn = l->turn};
    l->running = true;
    l->thread = g_thread_try_new("vmf-answer", answer_main, server, NULL);
    if (!l->thread) { /* nobody can ask: the outcome may stay unknown */
        l->running = false;
        g_free(server);
    }
}

/*
 * Updates the thread, and releases the lock. If the thread is not needed, it has ended on return.
 */
static void update_and_unlock(Listening *l)
{
    GThread *ended = NULL;

    update_locked(l);
    if (!thread_is_needed_locked(l)) {
        ended = g_steal_pointer(&l->thread);
        l->running = false;
        l->turn++; /* another session may need a thread before this one has ended */
    }
    g_mutex_unlock(&l->lock);
    if (ended) {
        g_thread_join(ended);
    }
}

/* --- the listener's owner, and threads that accept --- */

void listening_disown(Listening *l)
{
    GQueue early;

    g_mutex_lock(&l->lock);
    l->owned = false; /* from here on no source is kept */
    early = l->early;
    g_queue_init(&l->early);
    for (unsigned i = l->answers->len; i-- > 0;) {
        if (!((Answer *)l->answers->pdata[i])->session) {
            g_ptr_array_remove_index(l->answers, i);
        }
    }
    update_and_unlock(l);
    turn_away(&early);
}

void listening_claim(Listening *l)
{
    g_mutex_lock(&l->lock);
    l->claims++;
    while (l->pause) {
        g_cancellable_cancel(l->pause);
        g_cond_wait(&l->changed, &l->lock);
    }
    g_mutex_unlock(&l->lock);
}

void listening_release(Listening *l)
{
    g_mutex_lock(&l->lock);
    l->claims--;
    update_and_unlock(l);
}

VmfConn *listening_accept(Listening *l, GCancellable *cancel, GBytes **first, GError **error)
{
    Early *early;
    VmfConn *conn;

    g_mutex_lock(&l->lock);
    early = g_queue_pop_head(&l->early);
    g_mutex_unlock(&l->lock);
    *first = NULL;
    if (!early) {
        return direct_usable(l->ops->accept(l->transport, cancel, error), l->ops, error);
    }
    *first = early->first;
    conn = early->conn;
    g_free(early);
    return conn;
}

/* --- the sessions --- */

void listening_add(VmfSession *s)
{
    Listening *l = s->reach.listening;
    Answer *answer = g_new0(Answer, 1);

    memcpy(answer->uuid, s->conn->uuid, VMF_UUID_BYTES);
    answer->session = s;
    g_mutex_lock(&l->lock);
    s->reach.answer = answer;
    g_ptr_array_add(l->answers, answer);
    update_and_unlock(l);
}

void listening_answer(VmfSession *s)
{
    g_mutex_lock(&s->reach.listening->lock);
    if (s->reach.answer) {
        s->reach.answer->needed = true;
    }
    update_and_unlock(s->reach.listening);
}

void listening_remove(VmfSession *s)
{
    Listening *l = s->reach.listening;
    Answer *answer;

    if (!l) {
        return;
    }
    g_mutex_lock(&l->lock);
    answer = g_steal_pointer(&s->reach.answer);
    if (!answer) {
        g_mutex_unlock(&l->lock);
        return;
    }
    g_mutex_lock(&s->core.lock);
    answer->handover = s->peer.handover;
    g_mutex_unlock(&s->core.lock);
    answer->session = NULL;
    if (!l->owned || !answer->needed || answer->handover.known) {
        g_ptr_array_remove(l->answers, answer);
    } else if (l->answers->len > KEPT_MAX) {
        for (unsigned i = 0; i < l->answers->len; i++) {
            if (!((Answer *)l->answers->pdata[i])->session) {
                g_ptr_array_remove_index(l->answers, i);
                break;
            }
        }
    }
    update_and_unlock(l);
}
