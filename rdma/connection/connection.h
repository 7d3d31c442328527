/* SPDX-License-Identifier: BSD-2-Clause */
/* connection.h -- making a connection, without its channels, and ending it */

#ifndef VMF_RDMA_CONNECTION_H
#define VMF_RDMA_CONNECTION_H

#include "rdma-conn.h"

/*
 * An empty connection with its event channel. The caller ends it by conn_close. NULL with *error.
 */
RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error);
/*
 * Makes `id' the id of the control connection, whose endpoint is set already. If it returns true,
 * the connection owns the id. False with *error: the caller still owns it.
 */
bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/* VmfTransport.close. Frees the connection and all that it owns. */
void conn_close(VmfConn *conn);

#endif
