/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-back.h -- the return path with stock QEMU: a second connection, on which the roles are changed
 */

#ifndef VMF_RDMA_V1_BACK_H
#define VMF_RDMA_V1_BACK_H

#include "conn.h"

/* VmfTransport.open_back. */
bool v1_open_back(VmfConn *conn, GError **error);
/* Destination: a second connection of the source's; and its events, when the listener is left. */
bool v1_accept_back(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
bool v1_adopt_back(RdmaConn *conn, GError **error);
/* Source, its thread: hands the stream to the engine until the destination hangs up. */
bool v1_serve_back(RdmaConn *conn, GError **error);
/* Destination, its thread: writes stream bytes; sleeps until wake_fd is readable. */
bool v1_send_back(RdmaConn *conn, const uint8_t *data, size_t size, GError **error);
bool v1_wait_back(RdmaConn *conn, int wake_fd, GError **error);

#endif
