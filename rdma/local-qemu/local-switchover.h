/* SPDX-License-Identifier: BSD-2-Clause */
/* local-switchover.h -- when this process's QEMU may stop the VM: rounds, and the acknowledgement
 */

#ifndef VMF_RDMA_LOCAL_SWITCHOVER_H
#define VMF_RDMA_LOCAL_SWITCHOVER_H

#include "local-source-state.h"

/*
 * QEMU stops the VM when what remains fits its downtime limit. On a fast wire that is in the first
 * pass, although another pass would leave far less. With its capability switchover-ack QEMU asks
 * the destination first, and the answer comes through this process. The option switchover-wait
 * holds the answer back while each pass over RAM writes less than the one before, for so long at
 * most.
 *
 * QEMU's migration thread calls the first three.
 */
void switchover_begin(LocalSource *s, const VmfUri *uri);
/* QEMU writes this part of RAM. A pass goes from the first block to the last, and upwards in each.
 */
void switchover_wrote(LocalSource *s, unsigned block, uint64_t offset, uint64_t bytes);
/* What QEMU has written is sent, and it asks itself whether to go on. */
void switchover_slice(LocalSource *s);

/* The destination's acknowledgement has come. The return path's reader. */
void switchover_acknowledged(LocalSource *s);
/* The return path may take an acknowledgement that is due, because no message is under way. */
void switchover_between_messages(LocalSource *s);

#endif
