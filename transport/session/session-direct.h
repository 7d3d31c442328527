/* SPDX-License-Identifier: BSD-2-Clause */
/* session-direct.h -- messages over a control connection before the control thread has it */

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
    const char *what;     /* what is being done, for errors */
} Direct;

/* Sends one message, and waits until the transport has taken it. */
bool direct_send(const Direct *d, unsigned type, uint64_t argument, const void *payload,
                 size_t size, GError **error);
/* Waits for the next message. Its payload is valid until the next call. */
bool direct_receive(const Direct *d, VmfRole sender, MessageHeader *header, const uint8_t **payload,
                    GError **error);
/*
 * Returns the connection if the engine can use it. Else closes it, and returns NULL with *error.
 * `conn' may be NULL.
 */
VmfConn *direct_usable(VmfConn *conn, const VmfTransport *ops, GError **error);

#endif
