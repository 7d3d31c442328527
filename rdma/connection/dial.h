/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dial.h -- source: one connection of rdma_cm, step by step, with a deadline and a cancel
 * descriptor
 */

#ifndef VMF_RDMA_DIAL_H
#define VMF_RDMA_DIAL_H

#include "rdma-conn.h"

typedef struct Dial {
    struct rdma_event_channel *events;
    gint64 deadline;
    int cancel_fd;
    const char *what; /* "cannot connect to ADDRESS" */
} Dial;

/* An id with a route to the address. The caller owns it. NULL with *error. */
struct rdma_cm_id *dial_resolve(const Dial *dial, struct sockaddr *address, GError **error);
/*
 * Connects the id, which has its queue pair already. `reply' (or NULL) receives the private data of
 * the answer, cut to WIRE_HELLO_BYTES. Bytes that did not come stay as they were.
 */
bool dial_establish(const Dial *dial, struct rdma_cm_id *id, const void *data, size_t size,
                    unsigned timeout_ms, uint8_t reply[WIRE_HELLO_BYTES], GError **error);
/*
 * One more connection to the address of the first one, with private data. `events' is the event
 * channel of the new id. Returns the id, and its endpoint in *ep. The caller owns both. NULL with
 * *error.
 */
struct rdma_cm_id *conn_connect_again(RdmaConn *conn, struct rdma_event_channel *events,
                                      const EndpointLimits *limits, const char *name,
                                      const void *data, size_t size, gint64 deadline, Endpoint **ep,
                                      GError **error);

#endif
