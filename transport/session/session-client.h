/* SPDX-License-Identifier: BSD-2-Clause */
/* session-client.h -- payloads of clients other than the RAM path */

#ifndef VMF_SESSION_CLIENT_H
#define VMF_SESSION_CLIENT_H

#include "session-state.h"

/* A payload for a client, and back. Any thread. */
Payload *session_get_payload(VmfSession *s);
void session_return_payload(VmfSession *s, Payload *payload);
/* Hands the payload to the channel, counting it in `done'; false when the channel has ended. */
bool session_submit(VmfSession *s, SessionChannel *channel, Payload **payload, PayloadDone *done);
/* The same with whichever channel has room first. */
bool session_submit_anywhere(VmfSession *s, Payload **payload, PayloadDone *done);
/* A channel has taken a payload: who waits for room may have it. The channel's thread. */
void session_tell_room(VmfSession *s);
/* The channel is through with a payload that points to `done'. */
void session_done(VmfSession *s, PayloadDone *done);
bool session_is_done(VmfSession *s, const PayloadDone *done);
/*
 * Waits until no channel works for `done' any more: at its end, or, when the session has failed,
 * as soon as every channel has let go. false on failure.
 */
bool session_await_done(VmfSession *s, const PayloadDone *done, GError **error);

#endif
