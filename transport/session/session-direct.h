/* SPDX-License-Identifier: BSD-2-Clause */
/* session-direct.h -- a control connection before a thread of its own has it */

#ifndef VMF_SESSION_DIRECT_H
#define VMF_SESSION_DIRECT_H

#include "base/message.h"
#include <vmferry/plugin/transport.h>

typedef struct Direct {
    const VmfTransport *ops;
    VmfConn *conn;
    GCancellable *cancel; /* or NULL */
    int cancel_fd;        /* or -1 */
    gint64 deadline;      /* of g_get_monotonic_time() */
    const char *what;     /* is being done, for errors */
} Direct;

/* Sends one message, and waits until the transport has taken it. */
bool direct_send(const Direct *d, unsigned type, uint64_t argument, const void *payload,
                 size_t size, GError **error);
/* The next message from the other side; its payload is valid until the next call. */
bool direct_receive(const Direct *d, VmfRole sender, MessageHeader *header, const uint8_t **payload,
                    GError **error);
/* A connection that the engine can use, or NULL: the transport has it back. NULL is allowed. */
VmfConn *direct_usable(VmfConn *conn, const VmfTransport *ops, GError **error);

#endif
