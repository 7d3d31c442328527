/* SPDX-License-Identifier: BSD-2-Clause */
/* setup.h -- what two vmferrys agree on: registration, chunk size, pin budget, addresses */

#ifndef VMF_RDMA_SETUP_H
#define VMF_RDMA_SETUP_H

#include <vmferry/plugin/transport.h>

struct RdmaConn;

/* Bytes that this side may pin besides the control connection's buffers; 0: no limit. */
uint64_t setup_own_budget(const struct RdmaConn *conn);

/* The members of VmfTransport. */
size_t setup_get_parameters(VmfConn *conn, uint8_t buffer[64]);
bool setup_peer_parameters(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error);
unsigned setup_default_channels(VmfConn *conn);
bool setup_ram(VmfConn *conn, GError **error);
bool setup_control_message(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                           GError **error);

#endif
