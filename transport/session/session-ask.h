/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ask.h -- a source whose connection was lost in the hand-over asks over another one */

#ifndef VMF_SESSION_ASK_H
#define VMF_SESSION_ASK_H

#include "session-state.h"

/*
 * Source, at the end of the control thread: asks the destination for the outcome over another
 * connection, or tells it that GO was never sent. It does nothing if neither is needed.
 */
void session_ask(VmfSession *s);

#endif
