/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.h -- making a connection, without its channels, and ending it */

#ifndef VMF_RDMA_CONNECTION_H
#define VMF_RDMA_CONNECTION_H

#include "conn.h"

/* An empty connection with its event channel; NULL with *error. */
RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error);
/* The control connection is on this id, and the connection owns it from here on, if true. */
bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/* VmfTransport.close. */
void conn_close(VmfConn *conn);

#endif
