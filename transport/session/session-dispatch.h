/* SPDX-License-Identifier: BSD-2-Clause */
/* session-dispatch.h -- what each control message does when it arrives */

#ifndef VMF_SESSION_DISPATCH_H
#define VMF_SESSION_DISPATCH_H

#include "session-state.h"

/* Handles one message. Returns false with *error if the connection must end. The control thread. */
bool session_dispatch(VmfSession *s, const uint8_t *message, size_t size, GError **error);

#endif
