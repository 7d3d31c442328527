/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-table.h -- a connection with stock QEMU as a transport: its beginning, its table, its end */

#ifndef VMF_RDMA_V1_TABLE_H
#define VMF_RDMA_V1_TABLE_H

#include "conn.h"
#include "v1-wire.h"

/* What such a connection's `ops' are. */
extern const VmfTransport v1_transport;
/* Source: stock QEMU has answered. */
bool v1_connected(RdmaConn *conn, const V1Capabilities *reply, GError **error);
/* Destination: stock QEMU asks to be let in; the reply, and the endpoint for it. */
void v1_reply(const V1Capabilities *request, uint8_t out[V1_CAPABILITIES_BYTES]);
Endpoint *v1_accept(RdmaConn *conn, struct rdma_cm_id *id, const V1Capabilities *request,
                    GError **error);

#endif
