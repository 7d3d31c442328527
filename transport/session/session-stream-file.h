/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stream-file.h -- the session's streams as migration files */

#ifndef VMF_SESSION_STREAM_FILE_H
#define VMF_SESSION_STREAM_FILE_H

#include "session-state.h"

/* Opens the session's file: to write on the source, to read on the destination. */
bool session_open_file(VmfSession *s, GError **error);
/* Source: no byte of the stream comes any more. Any thread. */
void session_end_stream(VmfSession *s);

#endif
