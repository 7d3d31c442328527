/* SPDX-License-Identifier: BSD-2-Clause */
/* session-lifecycle.h -- making a session, both for one that connects and for one that accepts */

#ifndef VMF_SESSION_LIFECYCLE_H
#define VMF_SESSION_LIFECYCLE_H

#include "session/session-state.h"

VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks);
bool session_make_descriptors(VmfSession *s, GError **error);
/* Makes the transport's connection the session's. */
void session_adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri);
/* Sets the session up after session_adopt(). Returns false with the session's error. */
bool session_make_ready(VmfSession *s, const VmfUri *uri, GError **error);
/* While the session is made, the user's cancellable (or NULL) cancels it. */
gulong session_chain(VmfSession *s, GCancellable *cancellable);
/* Ends the making. Returns the session, or frees it and returns NULL if it is not `ok'. */
VmfSession *session_finish(VmfSession *s, bool ok, GCancellable *cancellable, gulong chained);

#endif
