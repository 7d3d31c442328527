/* SPDX-License-Identifier: BSD-2-Clause */
/* local-destination.h -- migrations to this process's QEMU, over sessions of vmferry */

#ifndef VMF_RDMA_LOCAL_DESTINATION_H
#define VMF_RDMA_LOCAL_DESTINATION_H

#include "local-link.h"

/*
 * QEMU listens. Each session becomes a connection of stock QEMU's protocol: it plays the source to
 * this process's QEMU. Returns 0 or an errno. QEMU's thread.
 */
int local_destination_listen(struct rdma_cm_id *id);

#endif
