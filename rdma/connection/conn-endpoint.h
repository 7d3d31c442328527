/* SPDX-License-Identifier: BSD-2-Clause */
/* conn-endpoint.h -- a connection's protection domains, and queue pairs in them */

#ifndef VMF_RDMA_CONN_ENDPOINT_H
#define VMF_RDMA_CONN_ENDPOINT_H

#include "conn.h"

/* Makes a queue pair on an id of the connection's; `data': by it, RAM may be written. */
Endpoint *conn_endpoint(RdmaConn *conn, struct rdma_cm_id *id, bool data,
                        const EndpointLimits *limits, const char *name, GError **error);
/* The one of the control connection. */
Endpoint *conn_control_endpoint(RdmaConn *conn, struct rdma_cm_id *id, GError **error);

#endif
