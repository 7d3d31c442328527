/* SPDX-License-Identifier: BSD-2-Clause */
/* session-revoke.c -- the end of the source's access to this side's RAM */

#include "session-revoke.h"

#include "session-channel.h"
#include "session-core.h"
#include "session-late-ram.h"
#include "session-waking.h"

bool session_syncs_can_come_locked(const VmfSession *s, GError **error)
{
    uint64_t needed = MAX(stream_newest_sync(&s->streams.in_ring), s->streams.final_sync);

    if (!s->streams.revoked || needed <= session_seen_locked(s)) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                "access to guest RAM was revoked before everything had arrived: the stream needs "
                "sync %" G_GUINT64_FORMAT ", the channels saw %" G_GUINT64_FORMAT,
                needed, session_seen_locked(s));
    return false;
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
    session_settle_late_ram(s);
    if (!s->ops->revoke(s->conn, &failure)) {
        session_need_error(&failure, "taking the source's access away");
        session_fail(s, failure, false);
        return session_report(s, error);
    }
    session_join_channels(s);
    g_mutex_lock(&s->core.lock);
    s->streams.revoked = true;
    ok = session_syncs_can_come_locked(s, &failure);
    g_mutex_unlock(&s->core.lock);
    if (!ok) {
        session_fail(s, failure, false);
    }
    return !session_failed(s) || session_report(s, error);
}

static bool all_was_read(VmfSession *s, GError **error)
{
    uint64_t unread;
    bool ended;

    g_mutex_lock(&s->core.lock);
    while (!s->core.error &&
           !(s->streams.in_ended &&
             (s->channel_count == 0 || session_seen_locked(s) >= s->streams.final_sync))) {
        /* While bytes are unread, the end cannot come: an error is better than a hang. */
        if (vmf_file_buffered(s->file) > 0 ||
            stream_readable(&s->streams.in_ring, session_seen_locked(s)) > 0) {
            break;
        }
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    unread = s->streams.in_ring.head - s->streams.in_ring.tail;
    ended = s->streams.in_ended;
    g_mutex_unlock(&s->core.lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    unread += vmf_file_buffered(s->file);
    if (!ended || unread) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                                 "the migration was completed with %" G_GUINT64_FORMAT
                                 " stream bytes unread: read to the end first",
                                 unread),
                     false);
        return session_report(s, error);
    }
    return true;
}

bool session_end_reading(VmfSession *s, GError **error)
{
    /* After the revocation nobody else can write to the VM's memory. */
    return all_was_read(s, error) && vmf_session_revoke(s, error);
}
