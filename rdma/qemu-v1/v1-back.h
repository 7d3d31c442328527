/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-back.h -- the return path with stock QEMU, a second connection in the other direction */

#ifndef VMF_RDMA_V1_BACK_H
#define VMF_RDMA_V1_BACK_H

#include "rdma-conn.h"

/*
 * VmfTransport.open_back. A source connects the return path. A destination only checks that it has
 * come.
 */
bool v1_open_back(VmfConn *conn, GError **error);
/*
 * Destination: makes the return path's channel on `id', the source's second connection. The channel
 * owns the id then. False with *error: the caller still owns it.
 */
bool v1_accept_back(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/*
 * Destination: moves the events of the return path away from the listener. Does nothing without a
 * return path.
 */
bool v1_adopt_back(RdmaConn *conn, GError **error);
/*
 * Source, the return path's thread: hands the stream to the engine until the destination hangs up.
 */
bool v1_serve_back(RdmaConn *conn, GError **error);
/*
 * Destination, the return path's thread: writes bytes of the stream, and waits until the source is
 * ready for them.
 */
bool v1_send_back(RdmaConn *conn, const uint8_t *data, size_t size, GError **error);
/*
 * Destination, the return path's thread: sleeps until wake_fd is readable. An error if the source
 * hangs up.
 */
bool v1_wait_back(RdmaConn *conn, int wake_fd, GError **error);

#endif
