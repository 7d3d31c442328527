/* SPDX-License-Identifier: BSD-2-Clause */
/* control.h -- the control connection: the engine's messages, and events of the connection */

#ifndef VMF_RDMA_CONTROL_H
#define VMF_RDMA_CONTROL_H

#include <vmferry/plugin/transport.h>

/* The members of VmfTransport. The control thread calls them. */
VmfControlResult control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                              GError **error);
VmfControlResult control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                 GError **error);
bool control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms, GError **error);

#endif
