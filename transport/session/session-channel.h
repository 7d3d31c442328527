/* SPDX-License-Identifier: BSD-2-Clause */
/* session-channel.h -- the channel threads of both sides */

#ifndef VMF_SESSION_CHANNEL_H
#define VMF_SESSION_CHANNEL_H

#include "session-state.h"

/* All but the mailbox, which can fail and has an init of its own; clear takes both. */
void session_channel_init(SessionChannel *channel, VmfSession *s, unsigned number, bool feeds);
void session_channel_clear(SessionChannel *channel);
/* Makes conn->channels of them, with their mailboxes. */
bool session_prepare_channels(VmfSession *s, GError **error);
bool session_start_channels(VmfSession *s, GError **error);
bool session_start_channel(SessionChannel *channel, GError **error);
/* Ends and joins them; they must have a reason to end (failure, revoke, or nothing to do). */
void session_join_channels(VmfSession *s);

#endif
