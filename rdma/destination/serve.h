/* SPDX-License-Identifier: BSD-2-Clause */
/* serve.h -- a channel on the destination, and the end of the source's access */

#ifndef VMF_RDMA_SERVE_H
#define VMF_RDMA_SERVE_H

#include <vmferry/plugin/transport.h>

/* VmfTransport.serve, for a vmferry as the source. The channel's thread. */
bool serve_channel(VmfConn *conn, unsigned channel, GError **error);
/*
 * VmfTransport.revoke, for both protocols. Takes every data queue pair down, and wakes the
 * channels. False with *error if any of that fails.
 */
bool serve_revoke(VmfConn *conn, GError **error);

#endif
