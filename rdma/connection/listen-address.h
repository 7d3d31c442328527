/* SPDX-License-Identifier: BSD-2-Clause */
/* listen-address.h -- the address that a listener is bound to */

#ifndef VMF_RDMA_LISTEN_ADDRESS_H
#define VMF_RDMA_LISTEN_ADDRESS_H

#include <vmferry/plugin/transport.h>
#include "verbs/verbs.h"

/*
 * An id that is bound to one of the host's addresses, and listens. The caller owns it. NULL with
 * *error. With an empty host, the id is bound to any address, and so to no device. `timeout_ms'
 * bounds the lookup of the host.
 */
struct rdma_cm_id *listen_on(struct rdma_event_channel *events, const VmfUri *uri,
                             unsigned timeout_ms, GError **error);

#endif
