/* SPDX-License-Identifier: BSD-2-Clause */
/* session-core.h -- the first error of a session, and who hears of it */

#ifndef VMF_SESSION_CORE_H
#define VMF_SESSION_CORE_H

#include "session-state.h"

/*
 * Takes the error over. If it is the first, it is the session's, and everything wakes up. NULL:
 * who failed gave no reason. Any thread.
 */
void session_fail(VmfSession *s, GError *error, bool from_peer);
/* The same: the control connection is no more. */
void session_lost(VmfSession *s, GError *error);
/* The same, for what the hand-over calls it (HANDOVER_CANCEL, ...). */
void session_fail_as(VmfSession *s, GError *error, HandoverEvent event);
/* Makes an error for something that failed without giving one. */
void session_need_error(GError **failure, const char *what);
/* The code of an error as it travels: codes of other domains mean nothing to the peer. */
uint64_t session_error_code(const GError *error);
/* Always false, with a copy of the session's error. Any thread. */
bool session_report(VmfSession *s, GError **error);

#endif
