/* SPDX-License-Identifier: BSD-2-Clause */
/* session-settle.h -- answering the source that asks whether its stream is at the destination */

#ifndef VMF_SESSION_SETTLE_H
#define VMF_SESSION_SETTLE_H

#include "session-state.h"

/* Answers SETTLE, if it was asked and the whole stream can be read. Any thread. */
void session_answer_settle(VmfSession *s);

#endif
