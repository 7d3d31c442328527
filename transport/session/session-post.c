/* SPDX-License-Identifier: BSD-2-Clause */
/* session-post.c -- control messages that wait for the control thread */

#include "session-post.h"

#include "session-core.h"
#include "session-waking.h"

/* Many times what a session of the largest VM sends at once. */
#define OUT_MAX 65536

void session_post(VmfSession *s, unsigned type, unsigned flags, uint64_t argument,
                  const void *payload, size_t size)
{
    OutMessage *message;
    bool full;

    g_mutex_lock(&s->core.lock);
    full = s->outbox.messages.length >= OUT_MAX;
    if (!full) {
        message = g_new(OutMessage, 1);
        message->header = (MessageHeader){
            .length = (uint32_t)size, .type = type, .flags = flags, .argument = argument};
        message->payload = size ? g_memdup2(payload, size) : NULL;
        g_queue_push_tail(&s->outbox.messages, message);
        session_wake_control_locked(s);
    }
    g_mutex_unlock(&s->core.lock);
    /* Most messages answer the peer, so a peer that asks and never reads must not cost memory. */
    if (full) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_PROTOCOL,
                                 "%u control messages wait for %s, which reads none of them",
                                 OUT_MAX, s->conn->peer),
                     false);
    }
}
