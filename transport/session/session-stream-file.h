/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stream-file.h -- the session's streams as migration files */

#ifndef VMF_SESSION_STREAM_FILE_H
#define VMF_SESSION_STREAM_FILE_H

#include "session-state.h"

/* Opens the session's file: for writing on the source, for reading on the destination. */
bool session_open_file(VmfSession *s, GError **error);
/* Ends this side's stream: no more bytes come. Any thread. */
void session_end_stream(VmfSession *s);
/*
 * Source: flushes stream and RAM for the last time. false with *error: the outcome of the hand-over
 * if the session has failed, else the file's error. The session's own thread.
 */
bool session_flush_last(VmfSession *s, GError **error);

#endif
