/* SPDX-License-Identifier: BSD-2-Clause */
/* local-source.h -- a migration away from this process's QEMU, over a session of vmferry */

#ifndef VMF_RDMA_LOCAL_SOURCE_H
#define VMF_RDMA_LOCAL_SOURCE_H

#include "local-link.h"

/*
 * QEMU connects: a migration begins, or the return path of one that has begun. It plays stock
 * QEMU's destination to this process's QEMU. RAM is queued where it lies, and the stream goes into
 * the session. Returns 0 or an errno. QEMU's thread.
 */
int local_source_connect(struct rdma_cm_id *id, const struct rdma_conn_param *param);

#endif
