/* SPDX-License-Identifier: BSD-2-Clause */
/* connect.h -- source: connecting to a destination, which is a vmferry or stock QEMU */

#ifndef VMF_RDMA_CONNECT_H
#define VMF_RDMA_CONNECT_H

#include <vmferry/plugin/transport.h>

/* VmfTransport.connect. */
VmfConn *conn_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                      GError **error);
/* The source's half of VmfTransport.open_channels. */
bool conn_open_channels(VmfConn *conn, GError **error);

#endif
