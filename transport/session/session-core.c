/* SPDX-License-Identifier: BSD-2-Clause */
/* session-core.c -- the first error of a session, and telling everybody of it */

#include "session-core.h"

#include "session-outcome.h"
#include "session-waking.h"

void session_need_error(GError **failure, const char *what)
{
    if (!*failure) {
        *failure = g_error_new(VMF_ERROR, VMF_ERROR_FAILED,
                               "%s failed, and the transport or the caller gave no reason", what);
    }
}

uint64_t session_error_code(const GError *error)
{
    return error->domain == VMF_ERROR ? (uint64_t)error->code : VMF_ERROR_FAILED;
}

/* Ends the waits of everything that works for the session. */
static void stop_work(VmfSession *s, unsigned channel_count, SessionChannel *back)
{
    g_cancellable_cancel(s->core.cancel);
    for (unsigned i = 0; i < channel_count; i++) {
        mailbox_close(&s->channels[i].mailbox);
    }
    if (back) {
        mailbox_close(&back->mailbox);
    }
}

/* Takes the error over, as the session's or as the hand-over's. Returns whether it is the first. */
static bool take_error_locked(VmfSession *s, GError *error, HandoverEvent event)
{
    const HandoverState before = s->peer.handover.state;

    session_event_locked(s, event);
    if (!s->core.error) {
        s->core.error = error;
        s->core.error_from_peer = event == HANDOVER_GOT_ERROR || event == HANDOVER_TOLD_KEPT;
        __atomic_store_n(&s->core.failed, 1, __ATOMIC_RELEASE);
        session_update_readable_locked(s);
        session_wake_control_locked(s);
        return true;
    }
    /*
     * This error decided the hand-over, and not the first one. If it decided nothing,
     * session_outcome() finds the words.
     */
    if (s->peer.handover.state != before && handover_over(&s->peer.handover) &&
        handover_owner(&s->peer.handover) != VMF_OWNER_UNKNOWN && !s->peer.outcome) {
        s->peer.outcome = error;
    } else {
        g_error_free(error);
    }
    return false;
}

void session_fail_as(VmfSession *s, GError *error, HandoverEvent event)
{
    unsigned channel_count;
    SessionChannel *back;
    bool first;

    session_need_error(&error, "the session");
    g_mutex_lock(&s->core.lock);
    channel_count = s->channel_count;
    back = s->qemu.back;
    if (event == HANDOVER_CANCEL) {
        s->core.hurry = true;
    }
    first = take_error_locked(s, error, event);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    if (event == HANDOVER_CANCEL) {
        g_cancellable_cancel(s->core.asking);
    }
    if (first) {
        stop_work(s, channel_count, back);
    }
}

void session_fail(VmfSession *s, GError *error, bool from_peer)
{
    session_fail_as(s, error, from_peer ? HANDOVER_GOT_ERROR : HANDOVER_FAULT);
}

void session_lost(VmfSession *s, GError *error)
{
    session_fail_as(s, error, HANDOVER_LOST);
}

bool session_report(VmfSession *s, GError **error)
{
    g_mutex_lock(&s->core.lock);
    if (s->core.error && error) {
        *error = g_error_copy(s->core.error);
    } else if (!s->core.error) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "the session has ended");
    }
    g_mutex_unlock(&s->core.lock);
    return false;
}

void vmf_session_fail(VmfSession *s, GError *error)
{
    session_fail(s, error, false);
}

void vmf_session_cancel(VmfSession *s)
{
    session_fail_as(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the migration was cancelled"),
                    HANDOVER_CANCEL);
}
