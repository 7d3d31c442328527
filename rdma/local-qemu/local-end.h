/* SPDX-License-Identifier: BSD-2-Clause */
/* local-end.h -- ending migrations after QEMU has let go of them */

#ifndef VMF_RDMA_LOCAL_END_H
#define VMF_RDMA_LOCAL_END_H

#include "local-source-state.h"

/*
 * Ends run in threads of their own, because they may have to wait for the peer. A process that
 * ends waits for them, so that a VM that was given away is taken.
 */
void local_end_run(const char *name, void (*end)(void *opaque), void *opaque);
/* Waits until every end that has begun is over, at most a minute. */
void local_end_await(void);

/* Frees a migration whose id QEMU has destroyed. Its link is not used any more on return. */
void local_end_source(LocalSource *s);

#endif
