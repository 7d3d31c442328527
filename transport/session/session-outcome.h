/* SPDX-License-Identifier: BSD-2-Clause */
/* session-outcome.h -- what happens to the hand-over, and how it ended */

#ifndef VMF_SESSION_OUTCOME_H
#define VMF_SESSION_OUTCOME_H

#include "session-state.h"

/*
 * Gives an event to the hand-over. Returns false if it cannot come now. The caller holds the lock.
 */
bool session_event_locked(VmfSession *s, HandoverEvent event);
/* session_event_locked() with the lock. Any thread. */
bool session_event(VmfSession *s, HandoverEvent event);
/* How the hand-over ended: true, or false with a copy of the reason. Any thread. */
bool session_outcome(VmfSession *s, GError **error);

#endif
