/* SPDX-License-Identifier: BSD-2-Clause */
/* session-client.h -- payloads of clients other than the RAM path */

#ifndef VMF_SESSION_CLIENT_H
#define VMF_SESSION_CLIENT_H

#include "session-state.h"

/* Gets an empty payload for a client, and takes it back. Any thread. */
Payload *session_get_payload(VmfSession *s);
void session_return_payload(VmfSession *s, Payload *payload);
/*
 * Hands the payload to the channel, and counts it in `done'. Returns false if the channel has
 * ended.
 */
bool session_submit(VmfSession *s, SessionChannel *channel, Payload **payload, PayloadDone *done);
/* session_submit() to the channel that has room first. */
bool session_submit_anywhere(VmfSession *s, Payload **payload, PayloadDone *done);
/* A channel has taken a payload: wakes threads that wait for room. The channel's thread. */
void session_tell_room(VmfSession *s);
/* The channel is done with a payload that points to `done'. */
void session_done(VmfSession *s, PayloadDone *done);
bool session_is_done(VmfSession *s, const PayloadDone *done);
/*
 * Waits until `done' is done. If the session has failed, waits until every channel has ended; then
 * it returns false with *error.
 */
bool session_await_done(VmfSession *s, const PayloadDone *done, GError **error);

#endif
