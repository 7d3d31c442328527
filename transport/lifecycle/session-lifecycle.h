/* SPDX-License-Identifier: BSD-2-Clause */
/* session-lifecycle.h -- making a session, for who connects and who accepts */

#ifndef VMF_SESSION_LIFECYCLE_H
#define VMF_SESSION_LIFECYCLE_H

#include "session/session-state.h"

VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks);
bool session_make_descriptors(VmfSession *s, GError **error);
/* The transport's connection becomes the session's. */
void session_adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri);
/* From session_adopt() to a session that works; on failure the session's error is reported. */
bool session_make_ready(VmfSession *s, const VmfUri *uri, GError **error);
/* While it is made, the user's cancellable (or NULL) cancels the session. */
gulong session_chain(VmfSession *s, GCancellable *cancellable);
/* The session, or NULL (it is freed) if it did not become one. */
VmfSession *session_finish(VmfSession *s, bool ok, GCancellable *cancellable, gulong chained);

#endif
