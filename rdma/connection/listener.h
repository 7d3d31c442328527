/* SPDX-License-Identifier: BSD-2-Clause */
/* listener.h -- destination: listening, and the loop that lets connections and channels in */

#ifndef VMF_RDMA_LISTENER_H
#define VMF_RDMA_LISTENER_H

#include <vmferry/plugin/transport.h>

/* The members of VmfTransport. */
VmfTransportListener *listener_listen(const VmfUri *uri, GError **error);
char *listener_address(VmfTransportListener *listener);
VmfConn *listener_accept(VmfTransportListener *listener, GCancellable *cancel, GError **error);
void listener_ram(VmfTransportListener *listener, VmfRamBlocks *blocks);
void listener_free(VmfTransportListener *listener);

/*
 * The destination's half of VmfTransport.open_channels. Waits until every channel is established.
 * False with *error: no channel is left.
 */
bool listener_await_channels(VmfConn *conn, GError **error);

#endif
