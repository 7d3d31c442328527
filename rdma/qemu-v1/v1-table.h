/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-table.h -- a connection with stock QEMU as a transport: its beginning, its table, its end */

#ifndef VMF_RDMA_V1_TABLE_H
#define VMF_RDMA_V1_TABLE_H

#include "rdma-conn.h"
#include "v1-wire.h"

/* The `ops' of such a connection. */
extern const VmfTransport v1_transport;
/*
 * Source: stock QEMU has answered. Makes the state of the connection. False with *error if the
 * options ask for what stock QEMU cannot do.
 */
bool v1_connected(RdmaConn *conn, const V1Capabilities *reply, GError **error);
/* Destination: the reply to a connection request of stock QEMU. */
void v1_reply(const V1Capabilities *request, uint8_t out[V1_CAPABILITIES_BYTES]);
/*
 * Destination: makes the state of the connection, and the endpoint on `id'. The caller owns the
 * endpoint, and still owns the id. NULL with *error.
 */
Endpoint *v1_accept(RdmaConn *conn, struct rdma_cm_id *id, const V1Capabilities *request,
                    GError **error);

#endif
