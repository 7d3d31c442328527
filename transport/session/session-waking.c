/* SPDX-License-Identifier: BSD-2-Clause */
/* session-waking.c -- waking the control thread, and the reader of the stream */

#include "session-waking.h"

#include <unistd.h>

void session_wake_control_locked(VmfSession *s)
{
    const uint64_t one = 1;

    if (s->outbox.sleeping) {
        s->outbox.sleeping = false;
        (void)!write(s->outbox.wake_fd, &one, sizeof(one));
    }
}

uint64_t session_seen_locked(const VmfSession *s)
{
    uint64_t seen = UINT64_MAX;

    if (s->role == VMF_ROLE_SOURCE) {
        return UINT64_MAX; /* the return path has no syncs */
    }
    for (unsigned i = 0; i < s->channel_count; i++) {
        seen = MIN(seen, s->channels[i].sync_seen);
    }
    return seen;
}

bool session_readable_locked(VmfSession *s)
{
    return s->core.error || stream_readable(&s->streams.in_ring, session_seen_locked(s)) > 0 ||
           (s->streams.in_ended && s->streams.in_ring.head == s->streams.in_ring.tail);
}

void session_update_readable_locked(VmfSession *s)
{
    bool readable = session_readable_locked(s);
    uint64_t count = 1;

    if (readable == s->streams.readable_set || s->streams.readable_fd < 0) {
        return;
    }
    s->streams.readable_set = readable;
    (void)!(readable ? write(s->streams.readable_fd, &count, sizeof(count))
                     : read(s->streams.readable_fd, &count, sizeof(count)));
}
