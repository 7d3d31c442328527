/* SPDX-License-Identifier: BSD-2-Clause */
/* session-complete.c -- handing the VM over: LOADED, GO, and who owns it when that fails */

#include "device/device-set.h"
#include "session/session-state.h"

/* --- the hand-over's state --- */

bool session_event_locked(VmfSession *s, HandoverEvent event)
{
    const HandoverState before = s->handover.state;
    const bool ok = handover_event(&s->handover, event);

    if (s->handover.state != before) {
        s->answer_since = g_get_monotonic_time();
    }
    g_cond_broadcast(&s->changed);
    session_wake_control_locked(s);
    return ok;
}

bool session_event(VmfSession *s, HandoverEvent event)
{
    bool ok;

    g_mutex_lock(&s->lock);
    ok = session_event_locked(s, event);
    g_mutex_unlock(&s->lock);
    return ok;
}

VmfOwner vmf_session_get_owner(VmfSession *s)
{
    VmfOwner owner;

    g_mutex_lock(&s->lock);
    owner = handover_owner(&s->handover);
    g_mutex_unlock(&s->lock);
    return owner;
}

static const char source_is_unsure[] =
    "the destination was told to run the VM, but has not confirmed it, and could not be asked: "
    "outcome unknown. This side must not run the VM. Look whether the destination runs it; only "
    "if it does not and never will, run it here";
static const char stock_may_run_it[] =
    "the destination, which is stock QEMU, may have had everything, and runs the VM then; it "
    "cannot "
    "be asked: outcome unknown. This side must not run the VM. Look whether the destination runs "
    "it; only if it does not and never will, run it here";
static const char destination_is_unsure[] =
    "everything is loaded, but the source was lost before it said GO, and has not come back: "
    "outcome unknown. The VM must stay stopped here: the source owns it, unless the source "
    "reports that GO was sent; then look at both sides and run it on one";

/* The outcome is remembered as it was first reported. */
static void note_outcome_locked(VmfSession *s)
{
    const char *lost = s->error ? s->error->message : "no reason";

    if (s->outcome) {
        return;
    }
    if (s->handover.state == HANDOVER_LEFT_OPEN || s->handover.state == HANDOVER_UNSURE) {
        s->outcome = g_error_new(VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME, "%s (%s)",
                                 s->handover.state == HANDOVER_UNSURE ? destination_is_unsure
                                 : s->conn->foreign                   ? stock_may_run_it
                                                                      : source_is_unsure,
                                 lost);
    } else if (s->handover.state == HANDOVER_KEPT && s->handover.asked) {
        s->outcome = g_error_new(VMF_ERROR, VMF_ERROR_PEER_LOST,
                                 "%s; asked again, the destination says that it does not run the "
                                 "VM and never will: this side owns it",
                                 lost);
    }
}

bool session_outcome(VmfSession *s, GError **error)
{
    g_autoptr(GError) reason = NULL;

    g_mutex_lock(&s->lock);
    if (!handover_succeeded(&s->handover)) {
        note_outcome_locked(s);
        if (s->outcome || s->error) {
            reason = g_error_copy(s->outcome ? s->outcome : s->error);
        }
    }
    g_mutex_unlock(&s->lock);
    if (reason) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    return true;
}

bool vmf_session_check(VmfSession *s, GError **error)
{
    return !session_failed(s) || session_outcome(s, error);
}

/* --- source --- */

static bool complete_source(VmfSession *s, GError **error)
{
    GError *failure = NULL;

    if (s->devices && !devices_are_done(s->devices, error)) {
        return false;
    }
    if (s->conn->foreign) {
        /* What has everything may run the VM, whether this side hears of it or not. */
        session_event(s, HANDOVER_SUBMITS);
    }
    if (!vmf_flush_ram_pages(s->file, VMF_FLUSH_FINAL)) {
        return session_failed(s) ? session_outcome(s, error) : vmf_file_check(s->file, error);
    }
    if (s->conn->foreign) {
        /* QEMU's destination has no way to say that it is ready: having everything must do. */
        if (!qemu_peer_settle(s, &failure)) {
            session_fail(s, failure, false);
            return session_outcome(s, error);
        }
        session_event(s, HANDOVER_FOREIGN);
        return session_outcome(s, error);
    }
    session_end_stream(s);
    session_event(s, HANDOVER_COMPLETE); /* too late if it has failed */
    g_mutex_lock(&s->lock);
    while (!handover_over(&s->handover)) { /* the control thread does the rest */
        g_cond_wait(&s->changed, &s->lock);
    }
    g_mutex_unlock(&s->lock);
    return session_outcome(s, error);
}

/* --- destination --- */

static bool all_was_read(VmfSession *s, GError **error)
{
    uint64_t unread;
    bool ended;

    g_mutex_lock(&s->lock);
    while (!s->error &&
           !(s->in_ended && (s->channel_count == 0 || session_seen_locked(s) >= s->final_sync))) {
        /* With unread bytes the end cannot be near: better an error than a hang. */
        if (vmf_file_buffered(s->file) > 0 ||
            stream_readable(&s->in_ring, session_seen_locked(s)) > 0) {
            break;
        }
        g_cond_wait(&s->changed, &s->lock);
    }
    unread = s->in_ring.head - s->in_ring.tail;
    ended = s->in_ended;
    g_mutex_unlock(&s->lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    unread += vmf_file_buffered(s->file);
    if (!ended || unread) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                                 "the migration was completed with %" G_GUINT64_FORMAT
                                 " stream bytes unread",
                                 unread),
                     false);
        return session_report(s, error);
    }
    return true;
}

bool vmf_session_revoke(VmfSession *s, GError **error)
{
    GError *failure = NULL;
    bool ok;

    if (s->role != VMF_ROLE_DESTINATION) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "only the destination can revoke access to its RAM");
        return false;
    }
    if (!s->ops->revoke(s->conn, &failure)) {
        session_need_error(&failure, "taking the source's access away");
        session_fail(s, failure, false);
        return session_report(s, error);
    }
    session_join_channels(s);
    g_mutex_lock(&s->lock);
    s->revoked = true;
    ok = session_syncs_can_come_locked(s, &failure);
    g_mutex_unlock(&s->lock);
    if (!ok) {
        session_fail(s, failure, false);
    }
    return !session_failed(s) || session_report(s, error);
}

/* Until the source has said GO or that it never will, here or over another connection. */
static void await_word(VmfSession *s)
{
    g_mutex_lock(&s->lock);
    while (!handover_over(&s->handover)) {
        /* The source may notice up to a time-out later, and asks for as long from then on. */
        const gint64 end = s->answer_since + 2 * (gint64)s->conn->timeout_ms * 1000;

        if (s->handover.state != HANDOVER_WAITS) {
            g_cond_wait(&s->changed, &s->lock);
        } else if (!g_cond_wait_until(&s->changed, &s->lock, end)) {
            session_event_locked(s, HANDOVER_TIME_UP);
        }
    }
    g_mutex_unlock(&s->lock);
}

static bool complete_destination(VmfSession *s, GError **error)
{
    if (s->devices && !devices_are_done(s->devices, error)) {
        return false;
    }
    /* After the revocation nobody else can write into the VM's memory. */
    if (!all_was_read(s, error) || !vmf_session_revoke(s, error)) {
        return false;
    }
    if (s->conn->foreign) { /* the source hung up, and had not failed */
        session_event(s, HANDOVER_FOREIGN);
        return session_outcome(s, error);
    }
    session_event(s, HANDOVER_COMPLETE); /* too late if it has failed */
    listening_answer(s);                 /* while GO comes: it may have to come another way */
    await_word(s);
    return session_outcome(s, error);
}

bool vmf_session_complete(VmfSession *s, GError **error)
{
    bool over;

    g_mutex_lock(&s->lock);
    over = handover_over(&s->handover);
    g_mutex_unlock(&s->lock);
    if (over) {
        return session_outcome(s, error);
    }
    if (session_failed(s)) {
        return session_report(s, error);
    }
    return s->role == VMF_ROLE_SOURCE ? complete_source(s, error) : complete_destination(s, error);
}
