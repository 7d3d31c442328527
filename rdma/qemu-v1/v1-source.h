/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-source.h -- the source of a migration to stock QEMU */

#ifndef VMF_RDMA_V1_SOURCE_H
#define VMF_RDMA_V1_SOURCE_H

#include "source/channel-dialect.h"
#include "rdma-conn.h"

/* The dialect of the source to stock QEMU. */
extern const ChannelDialect v1_dialect;

/* The source's half of VmfTransport.ram_setup. False with *error. */
bool v1_source_setup(RdmaConn *conn, GError **error);
/*
 * The members of VmfTransport. A destination calls send_stream and wait, too, for the return path.
 */
bool v1_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset, uint64_t length,
                 GError **error);
bool v1_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset, uint64_t length,
                  GError **error);
bool v1_send_stream(VmfConn *conn, unsigned channel, const uint8_t *data, size_t size, bool hook,
                    GError **error);
bool v1_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
bool v1_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

#endif
