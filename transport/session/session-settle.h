/* SPDX-License-Identifier: BSD-2-Clause */
/* session-settle.h -- the source's question whether its stream is at the destination */

#ifndef VMF_SESSION_SETTLE_H
#define VMF_SESSION_SETTLE_H

#include "session-state.h"

/* Answers the source's question whether its stream is here, if it is. Any thread. */
void session_answer_settle(VmfSession *s);

#endif
