/* SPDX-License-Identifier: BSD-2-Clause */
/* local-giving.h -- the end of a migration away: who runs the VM */

#ifndef VMF_RDMA_LOCAL_GIVING_H
#define VMF_RDMA_LOCAL_GIVING_H

#include "local-source-state.h"

/*
 * QEMU's source gives the VM up when its last send is complete, and keeps the VM when that send
 * fails. So the send is held back until the destination has loaded everything. The VM is given away
 * (GO) at the moment in which QEMU takes the completion: from then on QEMU does not keep the VM,
 * and before it may. If giving it away fails there, QEMU gets an error in place of the completion.
 */

/* The last bytes were put, and the send is held back. QEMU's migration thread. */
bool giving_begin(LocalSource *s, uint64_t wr_id);
/* LocalLinkOps.polled */
void giving_polled(LocalLink *link, struct ibv_wc *wc);
/* QEMU does not go on, so the VM is not given away any more. Any thread. */
void giving_give_up(LocalSource *s);
/* Whether the VM is, or may be, the other side's. Any thread. */
bool giving_gave(LocalSource *s);

#endif
