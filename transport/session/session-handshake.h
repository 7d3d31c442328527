/* SPDX-License-Identifier: BSD-2-Clause */
/* session-handshake.h -- HELLO and its reply, before the control thread runs */

#ifndef VMF_SESSION_HANDSHAKE_H
#define VMF_SESSION_HANDSHAKE_H

#include "session-state.h"

/* Greets the peer. After a failure it tries to tell the peer why. */
bool session_shake_hands(VmfSession *s, const VmfUri *uri, GError **error);

#endif
