/* SPDX-License-Identifier: BSD-2-Clause */
/* session-revoke.h -- the end of the source's access to this side's RAM */

#ifndef VMF_SESSION_REVOKE_H
#define VMF_SESSION_REVOKE_H

#include "session-state.h"

/*
 * Destination: false if the channels were ended before a sync came that the stream waits for: it
 * would wait for ever. The caller holds the lock.
 */
bool session_syncs_can_come_locked(const VmfSession *s, GError **error);
/*
 * Destination, completing: waits until the stream has ended and every byte of it was read, and
 * then takes the source's access away. false with *error: something is unread.
 */
bool session_end_reading(VmfSession *s, GError **error);

#endif
