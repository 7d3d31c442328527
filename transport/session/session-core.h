/* SPDX-License-Identifier: BSD-2-Clause */
/* session-core.h -- the first error of a session, and telling everybody of it */

#ifndef VMF_SESSION_CORE_H
#define VMF_SESSION_CORE_H

#include "session-state.h"

/*
 * Takes the error over. If it is the first, it becomes the session's, and all that wait are woken.
 * NULL: there is no reason. Any thread.
 */
void session_fail(VmfSession *s, GError *error, bool from_peer);
/* session_fail() when the control connection is lost. */
void session_lost(VmfSession *s, GError *error);
/* session_fail() with the event that the hand-over gets (HANDOVER_CANCEL, ...). */
void session_fail_as(VmfSession *s, GError *error, HandoverEvent event);
/* Makes an error if something failed without giving one. */
void session_need_error(GError **failure, const char *what);
/* The code of an error as the peer gets it: it does not know the codes of other domains. */
uint64_t session_error_code(const GError *error);
/* Always returns false, with a copy of the session's error. Any thread. */
bool session_report(VmfSession *s, GError **error);

#endif
