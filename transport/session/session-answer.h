/* SPDX-License-Identifier: BSD-2-Clause */
/* session-answer.h -- a destination's listener, and what its sessions say to a source that asks */

#ifndef VMF_SESSION_ANSWER_H
#define VMF_SESSION_ANSWER_H

#include "session-direct.h"
#include "session-state.h"

typedef struct Listening Listening;
typedef struct Answer Answer;

/* Listens on the URI's address; NULL with *error. Unreferenced by the caller. */
Listening *listening_new(const VmfUri *uri, GError **error);
const VmfUri *listening_uri(const Listening *l);
const VmfTransport *listening_ops(const Listening *l);
VmfTransportListener *listening_transport(const Listening *l);
Listening *listening_ref(Listening *l);
void listening_unref(Listening *l);
/* No more sessions are wanted. */
void listening_disown(Listening *l);
/* Who accepts a session claims the transport's listener for that time. */
void listening_claim(Listening *l);
void listening_release(Listening *l);
/* The next connection, and what was read of it already (or NULL); the claim is the caller's. */
VmfConn *listening_accept(Listening *l, GCancellable *cancel, GBytes **first, GError **error);
/* The session's answer may be asked for from now on, by its UUID. */
void listening_add(VmfSession *s);
/* ... and the source is listened to, until its answer is known. */
void listening_answer(VmfSession *s);
/* The session ends: with the listener still wanted its answer is kept. */
void listening_remove(VmfSession *s);
/* A connection began with that ASK: answers it. */
void listening_asked(Listening *l, const Direct *d, const MessageHeader *header,
                     const uint8_t *payload);

#endif
