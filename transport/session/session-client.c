/* SPDX-License-Identifier: BSD-2-Clause */
/* session-client.c -- payloads of clients other than the RAM path; raw writes for benchmarks */

#include "session-client.h"

#include "session-core.h"
#include "session-late-ram.h"

/* --- payloads for clients --- */

Payload *session_get_payload(VmfSession *s)
{
    Payload *payload;

    g_mutex_lock(&s->core.lock);
    payload = g_queue_pop_head(&s->clients.free_payloads);
    g_mutex_unlock(&s->core.lock);
    return payload ? payload : g_new0(Payload, 1);
}

void session_return_payload(VmfSession *s, Payload *payload)
{
    payload->kind = PAYLOAD_EMPTY;
    g_mutex_lock(&s->core.lock);
    g_queue_push_head(&s->clients.free_payloads, payload);
    g_mutex_unlock(&s->core.lock);
}

static void count(VmfSession *s, PayloadDone *done, int change)
{
    g_mutex_lock(&s->core.lock);
    done->left += (unsigned)change;
    if (done->left == 0) {
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
}

bool session_submit(VmfSession *s, SessionChannel *channel, Payload **payload, PayloadDone *done)
{
    count(s, done, 1);
    if (mailbox_put(&channel->mailbox, payload)) {
        return true;
    }
    count(s, done, -1);
    return false;
}

/* Asks every channel, and `first' first. */
static bool submit_now(VmfSession *s, unsigned first, Payload **payload)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        if (mailbox_try_put(&s->channels[(first + i) % s->channel_count].mailbox, payload)) {
            return true;
        }
    }
    return false;
}

bool session_submit_anywhere(VmfSession *s, Payload **payload, PayloadDone *done)
{
    const unsigned first = __atomic_fetch_add(&s->counters.next_channel, 1, __ATOMIC_RELAXED);
    bool taken;

    count(s, done, 1);
    taken = submit_now(s, first, payload);
    if (!taken) {
        g_mutex_lock(&s->core.lock);
        /*
         * Set before the mailboxes are tried, so that a channel that takes a payload later sees it.
         */
        __atomic_fetch_add(&s->counters.room_wanted, 1, __ATOMIC_SEQ_CST);
        while (!s->core.error && !(taken = submit_now(s, first, payload))) {
            g_cond_wait(&s->core.changed, &s->core.lock);
        }
        __atomic_fetch_sub(&s->counters.room_wanted, 1, __ATOMIC_SEQ_CST);
        g_mutex_unlock(&s->core.lock);
    }
    if (!taken) {
        count(s, done, -1);
    }
    return taken;
}

void session_tell_room(VmfSession *s)
{
    if (__atomic_load_n(&s->counters.room_wanted, __ATOMIC_SEQ_CST)) {
        g_mutex_lock(&s->core.lock);
        g_cond_broadcast(&s->core.changed);
        g_mutex_unlock(&s->core.lock);
    }
}

void session_done(VmfSession *s, PayloadDone *done)
{
    count(s, done, -1);
}

bool session_is_done(VmfSession *s, const PayloadDone *done)
{
    bool is;

    g_mutex_lock(&s->core.lock);
    is = done->left == 0;
    g_mutex_unlock(&s->core.lock);
    return is;
}

static bool channels_over_locked(const VmfSession *s)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        if (!s->channels[i].over) {
            return false;
        }
    }
    return true;
}

/*
 * After a failure a channel may still read the client's memory. So the client waits until that
 * thread has ended, which it does at once.
 */
bool session_await_done(VmfSession *s, const PayloadDone *done, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    while (done->left && !channels_over_locked(s)) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    ok = !done->left && !s->core.error;
    g_mutex_unlock(&s->core.lock);
    return ok || session_report(s, error);
}

/* --- raw writes --- */

bool vmf_session_raw_write(VmfSession *s, uint64_t message_size, uint64_t total_bytes,
                           double *seconds, GError **error)
{
    PayloadDone done[VMF_CHANNELS_MAX] = {0};
    bool ok = true;

    if (s->role != VMF_ROLE_SOURCE || !VMF_TRANSPORT_HAS(s->ops, raw_write)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "%s: has no raw writes to measure (or this is the destination)",
                    s->ops->scheme);
        return false;
    }
    if (!session_await_ram(s, error)) {
        return false;
    }
    if (message_size < 512 || (message_size & (message_size - 1)) ||
        message_size > s->conn->stripe || s->conn->block_count == 0 ||
        s->conn->blocks[0]->length < s->conn->stripe * s->channel_count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "raw writes of %" G_GUINT64_FORMAT
                    " bytes: a power of two up to the stripe of %" G_GUINT64_FORMAT
                    ", and a RAM block with a stripe for each channel",
                    message_size, s->conn->stripe);
        return false;
    }
    for (unsigned i = 0; i < s->channel_count; i++) {
        Payload *payload = session_get_payload(s);

        payload->kind = PAYLOAD_RAW;
        payload->raw.message_size = message_size;
        payload->raw.bytes = MAX(total_bytes / s->channel_count, message_size);
        payload->raw.done = &done[i];
        session_submit(s, &s->channels[i], &payload, &done[i]);
        session_return_payload(s, payload);
    }
    *seconds = 0;
    /* All are awaited in any case, because they write to this function's memory. */
    for (unsigned i = 0; i < s->channel_count; i++) {
        ok = session_await_done(s, &done[i], NULL) && ok;
        *seconds = MAX(*seconds, done[i].seconds);
    }
    return ok || session_report(s, error);
}
