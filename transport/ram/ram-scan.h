/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-scan.h -- what of a RAM range must be sent, and zeroing without making memory resident */

#ifndef VMF_RAM_SCAN_H
#define VMF_RAM_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/ram.h>

#include "presence.h"

typedef struct RamScan RamScan;

/*
 * Returns NULL with *error if the memory of the set cannot be used so; see presence_init(). It
 * holds a reference to `blocks'.
 */
RamScan *ram_scan_new(VmfRamBlocks *blocks, PresenceUse use, GError **error);
void ram_scan_free(RamScan *scan);
/* The memory of the scan itself, in bytes. */
uint64_t ram_scan_own_bytes(const RamScan *scan);

typedef struct RamRun {
    uint64_t offset, length;
    bool zero; /* all zero, or never touched: nothing is sent */
} RamRun;

/*
 * Finds the next run of [*offset, end), and moves *offset to its end. Returns false when nothing is
 * left. Untouched memory stays untouched. Several threads may scan at a time. The guest may write
 * meanwhile. Its VMM sees the page dirty then, and saves it again.
 */
bool ram_scan_next(RamScan *scan, const VmfRamBlock *block, uint64_t *offset, uint64_t end,
                   RamRun *run);

/*
 * Whether the memory at `offset' was touched, and where that changes (*until), at most `end'.
 * Unknown memory counts as touched. It touches no memory. Any thread.
 */
bool ram_scan_touched(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                      uint64_t *until);

/*
 * Destination: makes a range read as zero. Untouched memory stays untouched, and zero memory is not
 * written. Nothing is unmapped, because an RDMA device may have registered the memory. The caller
 * has checked the bounds. Any thread.
 */
void ram_scan_zero(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length);
/*
 * ram_scan_zero() for memory that nobody has registered or pinned. It gives private anonymous
 * memory back to the system. A short range, and memory of a userfaultfd handler, are only made
 * zero. No other thread may write to the range meanwhile.
 */
void ram_scan_release(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length);

#endif
