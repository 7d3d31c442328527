/* SPDX-License-Identifier: BSD-2-Clause */
/* session-qemu-peer.h -- what a transport calls about the stream of stock QEMU */

#ifndef VMF_SESSION_QEMU_PEER_H
#define VMF_SESSION_QEMU_PEER_H

#include <vmferry/plugin/transport.h>

/* See VmfConnHost. The thread of channel 0, or of the return path. */
bool qemu_peer_stream_arrived(VmfConn *conn, const uint8_t *data, size_t size, bool *hook,
                              GError **error);
void qemu_peer_stream_ended(VmfConn *conn);
bool qemu_peer_stream_blocks(VmfConn *conn, GError **error);

#endif
