/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-transport.h -- the built-in transports tcp: and unix:, for the registry */

#ifndef VMF_TCP_TRANSPORT_H
#define VMF_TCP_TRANSPORT_H

#include <vmferry/plugin/transport.h>

extern const VmfTransport tcp_transport, unix_transport;

#endif
