/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-destination.h -- the destination of a migration from stock QEMU */

#ifndef VMF_RDMA_V1_DESTINATION_H
#define VMF_RDMA_V1_DESTINATION_H

#include "conn.h"

/* Waits for the first message, which tells whether the peer means to migrate. */
bool v1_await_stream(RdmaConn *conn, GError **error);
/* VmfTransport.serve; the return path's source comes by it, too. */
bool v1_serve(VmfConn *conn, unsigned channel, GError **error);

#endif
