/* SPDX-License-Identifier: BSD-2-Clause */
/* session-answer.h -- a destination's listener, and the answers for a source that asks */

#ifndef VMF_SESSION_ANSWER_H
#define VMF_SESSION_ANSWER_H

#include "session-direct.h"
#include "session-state.h"

typedef struct Listening Listening;
typedef struct Answer Answer;

/* Listens on the URI's address. The caller drops the reference. Returns NULL with *error. */
Listening *listening_new(const VmfUri *uri, GError **error);
const VmfUri *listening_uri(const Listening *l);
const VmfTransport *listening_ops(const Listening *l);
VmfTransportListener *listening_transport(const Listening *l);
Listening *listening_ref(Listening *l);
void listening_unref(Listening *l);
/* The listener's owner wants no more sessions. */
void listening_disown(Listening *l);
/* A thread that accepts claims the transport's listener for that time. */
void listening_claim(Listening *l);
void listening_release(Listening *l);
/*
 * Waits for the next connection. *first is its first message, if it was read already, or NULL; the
 * caller drops it. The caller has the claim.
 */
VmfConn *listening_accept(Listening *l, GCancellable *cancel, GBytes **first, GError **error);
/* From now on a source may ask for this session's answer, by its UUID. */
void listening_add(VmfSession *s);
/* From now on the listener takes questions, until the session's answer is known. */
void listening_answer(VmfSession *s);
/* The session ends. Its answer is kept if the listener is still wanted. */
void listening_remove(VmfSession *s);
/* Answers an ASK, which was the first message of a connection. */
void listening_asked(Listening *l, const Direct *d, const MessageHeader *header,
                     const uint8_t *payload);

#endif
