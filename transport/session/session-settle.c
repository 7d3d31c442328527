/* SPDX-License-Identifier: BSD-2-Clause */
/* session-settle.c -- answering the source that asks whether its stream is at the destination */

#include "session-settle.h"

#include "session-peer.h"
#include "session-post.h"
#include "session-waking.h"

void session_answer_settle(VmfSession *s)
{
    uint64_t all;
    bool settled;

    g_mutex_lock(&s->core.lock);
    all = s->streams.in_ring.head;
    settled =
        s->streams.settle_asked && stream_readable(&s->streams.in_ring, session_seen_locked(s)) ==
                                       all - s->streams.in_ring.tail;
    s->streams.settle_asked &= !settled;
    g_mutex_unlock(&s->core.lock);
    if (settled) {
        session_post(s, MESSAGE_SETTLED, 0, all, NULL, 0);
    }
}

bool vmf_session_settle(VmfSession *s, GError **error)
{
    if (s->role != VMF_ROLE_SOURCE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "only the source settles its stream");
        return false;
    }
    if (!vmf_file_flush(s->file, error)) {
        return false;
    }
    return s->peer_ops->settle(s, error);
}
