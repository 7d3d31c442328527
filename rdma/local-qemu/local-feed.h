/* SPDX-License-Identifier: BSD-2-Clause */
/* local-feed.h -- feeding this process's QEMU with a stream, as stock QEMU's source would */

#ifndef VMF_RDMA_LOCAL_FEED_H
#define VMF_RDMA_LOCAL_FEED_H

#include "local-destination-state.h"

/*
 * The feeder thread: gives QEMU everything, and hands the VM over at the end. QEMU gets the byte
 * EOF and what follows only when the VM is this side's. Until then it has all devices, and waits.
 * So QEMU itself fails if the byte never comes, and does not run the VM.
 */
void *local_feed_main(void *destination);

#endif
