/* SPDX-License-Identifier: BSD-2-Clause */
/* local-return.h -- the return path of a migration away, which QEMU makes as a connection */

#ifndef VMF_RDMA_LOCAL_RETURN_H
#define VMF_RDMA_LOCAL_RETURN_H

#include "local-source-state.h"

/*
 * QEMU connects a second time to the same host and port for its return path, before it sends
 * anything. The bytes come by the session's return path.
 *
 * With stock QEMU at the other end, SHUT comes from there. If the return path is lost after the VM
 * was given away, QEMU gets one all the same, or it would run the VM.
 */

/* The migration may get a return path from now on. */
void local_return_offer(LocalSource *s);
/* It will not any more. Any thread. */
void local_return_withdraw(LocalSource *s);
/*
 * Whether this connection is the return path of a migration that has begun, and not a migration of
 * its own. *link is its link, or NULL if there can be none.
 */
bool local_return_connect(struct rdma_cm_id *id, LocalLink **link);

#endif
