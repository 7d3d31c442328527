/* SPDX-License-Identifier: BSD-2-Clause */
/* session-revoke.h -- the end of the source's access to this side's RAM */

#ifndef VMF_SESSION_REVOKE_H
#define VMF_SESSION_REVOKE_H

#include "session-state.h"

/*
 * Destination: returns false with *error if the stream waits for a sync that can never come,
 * because the channels have ended. The caller holds the lock.
 */
bool session_syncs_can_come_locked(const VmfSession *s, GError **error);
/*
 * Destination, in vmf_session_complete(): waits until the stream has ended and all of it was read.
 * Then it ends the source's access. Returns false with *error if bytes are unread.
 */
bool session_end_reading(VmfSession *s, GError **error);

#endif
