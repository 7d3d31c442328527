/* SPDX-License-Identifier: BSD-2-Clause */
/* session-post.h -- control messages that wait for the control thread */

#ifndef VMF_SESSION_POST_H
#define VMF_SESSION_POST_H

#include "session-state.h"

/*
 * Queues a message; `payload' is copied. If too many wait, because the peer reads nothing, the
 * session fails. Any thread.
 */
void session_post(VmfSession *s, unsigned type, unsigned flags, uint64_t argument,
                  const void *payload, size_t size);

#endif
