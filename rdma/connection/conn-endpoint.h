/* SPDX-License-Identifier: BSD-2-Clause */
/* conn-endpoint.h -- a connection's protection domains, and queue pairs in them */

#ifndef VMF_RDMA_CONN_ENDPOINT_H
#define VMF_RDMA_CONN_ENDPOINT_H

#include "rdma-conn.h"

/*
 * Makes a queue pair on an id of the connection. With `data' it is in the protection domain of
 * guest RAM. The caller owns the endpoint, and still owns the id. NULL with *error.
 */
Endpoint *conn_endpoint(RdmaConn *conn, struct rdma_cm_id *id, bool data,
                        const EndpointLimits *limits, const char *name, GError **error);
/* The same for the control connection. */
Endpoint *conn_control_endpoint(RdmaConn *conn, struct rdma_cm_id *id, GError **error);

#endif
