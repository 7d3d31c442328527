/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-source.h -- what a channel thread of the source calls: RAM, zero ranges, sync */

#ifndef VMF_RDMA_RAM_SOURCE_H
#define VMF_RDMA_RAM_SOURCE_H

#include <vmferry/plugin/transport.h>

/*
 * The members of VmfTransport. source_send_ram, source_send_zero and source_kick work in any
 * dialect. The other two are for a vmferry.
 */
bool source_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                     uint64_t length, GError **error);
bool source_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                      uint64_t length, GError **error);
bool source_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
bool source_kick(VmfConn *conn, unsigned channel, GError **error);
bool source_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

#endif
