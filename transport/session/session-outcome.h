/* SPDX-License-Identifier: BSD-2-Clause */
/* session-outcome.h -- what happens to the hand-over, and how it ended */

#ifndef VMF_SESSION_OUTCOME_H
#define VMF_SESSION_OUTCOME_H

#include "session-state.h"

/* Tells the hand-over of an event. The caller holds the lock. false: it cannot come now. */
bool session_event_locked(VmfSession *s, HandoverEvent event);
/* The same. Any thread. */
bool session_event(VmfSession *s, HandoverEvent event);
/* How the hand-over ended: true, or false with a copy of the reason. Any thread. */
bool session_outcome(VmfSession *s, GError **error);

#endif
