/* SPDX-License-Identifier: BSD-2-Clause */
/* session-complete.c -- handing the VM over: LOADED, GO, and who owns it when that fails */

#include "devices.h"
#include "session.h"

/* Waits for a flag that the control thread sets; false when the session failed first. */
static bool await(VmfSession *s, const bool *flag)
{
    bool ok;

    g_mutex_lock(&s->lock);
    while (!*flag && !s->error) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ok = *flag;
    g_mutex_unlock(&s->lock);
    return ok;
}

static void set_completed(VmfSession *s)
{
    g_mutex_lock(&s->lock);
    s->completed = true;
    g_mutex_unlock(&s->lock);
}

static bool unknown_outcome(VmfSession *s, const char *what, GError **error)
{
    g_autoptr(GError) reason = NULL;

    session_report(s, &reason);
    g_set_error(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME, "%s (%s)", what, reason->message);
    return false;
}

/* --- source --- */

static bool complete_source(VmfSession *s, GError **error)
{
    bool seen, sent;

    if (s->devices && !devices_are_done(s->devices, error)) {
        return false;
    }
    if (!vmf_flush_ram_pages(s->file, VMF_FLUSH_FINAL)) {
        return session_failed(s) ? session_report(s, error) : vmf_file_check(s->file, error);
    }
    if (s->conn->foreign) {
        /* QEMU's destination has no way to say that it is ready: having everything must do. */
        if (!foreign_settle(s, error)) {
            return false;
        }
        set_completed(s);
        return true;
    }
    session_end_stream(s);
    if (!await(s, &s->loaded)) {
        return session_report(s, error);
    }
    session_post(s, MESSAGE_GO, 0, 0, NULL, 0);
    seen = await(s, &s->go_seen);
    g_mutex_lock(&s->lock);
    sent = s->go_sent;
    g_mutex_unlock(&s->lock);
    if (seen) {
        set_completed(s);
        session_post(s, MESSAGE_BYE, 0, 0, NULL, 0);
        return true;
    }
    if (!sent) { /* it never left: this side still owns the VM */
        return session_report(s, error);
    }
    return unknown_outcome(s,
                           "the destination was told to run the VM, but has not confirmed it: "
                           "outcome unknown. This side must not run the VM. Look whether the "
                           "destination runs it; only if it does not and never will, run it here",
                           error);
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
        set_completed(s);
        return true;
    }
    g_mutex_lock(&s->lock);
    s->loaded = true;
    g_mutex_unlock(&s->lock);
    session_post(s, MESSAGE_LOADED, 0, 0, NULL, 0);
    if (await(s, &s->go)) {
        set_completed(s);
        session_post(s, MESSAGE_GO_SEEN, 0, 0, NULL, 0);
        return true;
    }
    if (s->error_from_peer) { /* the source said so before GO: it owns the VM */
        return session_report(s, error);
    }
    return unknown_outcome(s,
                           "everything is loaded, but the source was lost before it said GO. The "
                           "VM must stay stopped here: the source owns it, unless the source "
                           "reports that GO was sent; then look at both sides and run it on one",
                           error);
}

bool vmf_session_complete(VmfSession *s, GError **error)
{
    if (session_failed(s)) {
        return session_report(s, error);
    }
    return s->role == VMF_ROLE_SOURCE ? complete_source(s, error) : complete_destination(s, error);
}
