/* SPDX-License-Identifier: BSD-2-Clause */
/* local-discards.h -- guest RAM that this process's QEMU gives back while it migrates */

#ifndef VMF_RDMA_LOCAL_DISCARDS_H
#define VMF_RDMA_LOCAL_DISCARDS_H

#include <vmferry/ram.h>

/*
 * A balloon and free page reporting give memory back to the system. A device that has registered
 * it must hear of that (vmf_ram_discarded()). QEMU does it by madvise(2) on the addresses, or by
 * fallocate(2) on the file behind them.
 */

/* The memory of this block matters from now on. Its address is known. Any thread. */
void local_discards_add(VmfRamBlocks *blocks, const VmfRamBlock *block);
/* No block of the set matters any more. No call about them is under way on return. Any thread. */
void local_discards_remove(VmfRamBlocks *blocks);

/*
 * QEMU has given back this memory, or this part of a file. Any thread, with any lock of QEMU's
 * held. For other memory they allocate nothing and take no lock.
 */
void local_discards_memory(void *address, size_t length);
void local_discards_file(int fd, uint64_t offset, uint64_t length);

#endif
