/* SPDX-License-Identifier: BSD-2-Clause */
/* raw.h -- plain RDMA writes over a channel, the limit that a benchmark compares with */

#ifndef VMF_RDMA_RAW_H
#define VMF_RDMA_RAW_H

#include <vmferry/plugin/transport.h>

/* VmfTransport.raw_write. */
bool raw_write(VmfConn *conn, unsigned channel, uint64_t message_size, uint64_t bytes,
               double *seconds, GError **error);

#endif
