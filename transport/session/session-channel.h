/* SPDX-License-Identifier: BSD-2-Clause */
/* session-channel.h -- the channel threads of both sides */

#ifndef VMF_SESSION_CHANNEL_H
#define VMF_SESSION_CHANNEL_H

#include "session-state.h"

/* Makes all but the mailbox, whose own init can fail. session_channel_clear() clears both. */
void session_channel_init(SessionChannel *channel, VmfSession *s, unsigned number, bool feeds);
void session_channel_clear(SessionChannel *channel);
/* Makes conn->channels channels and their mailboxes. */
bool session_prepare_channels(VmfSession *s, GError **error);
bool session_start_channels(VmfSession *s, GError **error);
bool session_start_channel(SessionChannel *channel, GError **error);
/*
 * Ends and joins the channels' threads. They must have a reason to end: failure, revocation, or
 * nothing to do.
 */
void session_join_channels(VmfSession *s);

#endif
