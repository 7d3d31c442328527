/* SPDX-License-Identifier: BSD-2-Clause */
/* local-shut.h -- the last message of a migration's return path: the destination is done */

#ifndef VMF_RDMA_LOCAL_SHUT_H
#define VMF_RDMA_LOCAL_SHUT_H

#include "local-source-state.h"

/*
 * QEMU's source has sent everything then, and still waits for SHUT. It runs its VM on if it is
 * cancelled meanwhile, or if the return path is lost. So QEMU gets SHUT before the VM is given
 * away, and has nothing to wait for afterwards. It gets nothing after it. Without a return path
 * nothing is done. Any thread.
 */
void local_shut(LocalSource *s);

#endif
