/* SPDX-License-Identifier: BSD-2-Clause */
/* session-waking.h -- waking the control thread, and the reader of the stream */

#ifndef VMF_SESSION_WAKING_H
#define VMF_SESSION_WAKING_H

#include "session-state.h"

/* Wakes the control thread. The caller holds the lock. */
void session_wake_control_locked(VmfSession *s);
/* The newest sync that every channel has seen. The caller holds the lock. */
uint64_t session_seen_locked(const VmfSession *s);
/* Whether a reader would find something: bytes, the end, or an error. The caller holds the lock. */
bool session_readable_locked(VmfSession *s);
/* Makes the descriptor of get_fd readable, or not, to match that. The caller holds the lock. */
void session_update_readable_locked(VmfSession *s);

#endif
