/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-destination.h -- the destination of a migration from stock QEMU */

#ifndef VMF_RDMA_V1_DESTINATION_H
#define VMF_RDMA_V1_DESTINATION_H

#include "rdma-conn.h"

/*
 * Says READY, and waits for the first message. That message shows whether the peer means to
 * migrate. The message is kept for v1_serve. False with *error.
 */
bool v1_await_stream(RdmaConn *conn, GError **error);
/* VmfTransport.serve. A source calls it, too, for the return path. */
bool v1_serve(VmfConn *conn, unsigned channel, GError **error);

#endif
