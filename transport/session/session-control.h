/* SPDX-License-Identifier: BSD-2-Clause */
/* session-control.h -- the control thread: all messages in and out, heartbeats, deadlines */

#ifndef VMF_SESSION_CONTROL_H
#define VMF_SESSION_CONTROL_H

#include "session-state.h"

bool session_start_control(VmfSession *s, GError **error);
/* Lets the control thread send what is queued, and joins it. */
void session_stop_control(VmfSession *s);

#endif
