/* SPDX-License-Identifier: BSD-2-Clause */
/* serve.h -- a channel on the destination, and the end of the source's access */

#ifndef VMF_RDMA_SERVE_H
#define VMF_RDMA_SERVE_H

#include <vmferry/plugin/transport.h>

/* VmfTransport.serve, for a vmferry. */
bool serve_channel(VmfConn *conn, unsigned channel, GError **error);
/* VmfTransport.revoke, for both protocols. */
bool serve_revoke(VmfConn *conn, GError **error);

#endif
