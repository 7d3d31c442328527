/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.h -- making a connection, without its channels, and ending it */

#ifndef VMF_RDMA_CONNECTION_H
#define VMF_RDMA_CONNECTION_H

#include "conn.h"

/* An empty connection with its event channel; NULL with *error. */
RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error);
/* Makes `id' the control connection's. If it returns true, the connection owns the id. */
bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/* VmfTransport.close. */
void conn_close(VmfConn *conn);

#endif
