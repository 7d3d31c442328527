/* SPDX-License-Identifier: BSD-2-Clause */
/* local-back.h -- the return path of a migration to this process's QEMU */

#ifndef VMF_RDMA_LOCAL_BACK_H
#define VMF_RDMA_LOCAL_BACK_H

#include "local-destination-state.h"

/*
 * Offers QEMU its return path as a second connection. Its messages go into the session's return
 * path. Returns when QEMU has accepted it. The feeder.
 */
bool local_back_offer(LocalDestination *d, GError **error);

#endif
