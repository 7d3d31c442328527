/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-scan.h -- what of a RAM range must be sent, and zeroing without making resident */

#ifndef VMF_RAM_SCAN_H
#define VMF_RAM_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/ram.h>

#include "presence.h"

typedef struct RamScan RamScan;

/* NULL with *error if some memory of the set may not be used so; see presence_init(). */
RamScan *ram_scan_new(VmfRamBlocks *blocks, PresenceUse use, GError **error);
void ram_scan_free(RamScan *scan);
/* Bytes that the scan itself takes. */
uint64_t ram_scan_own_bytes(const RamScan *scan);

typedef struct RamRun {
    uint64_t offset, length;
    bool zero; /* all zero, or never touched: nothing to send */
} RamRun;

/*
 * The next run of [*offset, end): sets *run and advances *offset; false when
 * nothing is left. Never-touched memory is not touched. Several threads may
 * scan at once. The guest may write meanwhile: a page that changes is saved
 * again, because its VMM sees it dirty.
 */
bool ram_scan_next(RamScan *scan, const VmfRamBlock *block, uint64_t *offset, uint64_t end,
                   RamRun *run);

/*
 * Whether the memory at `offset' was touched, and until where, at most `end',
 * that holds (*until): touched for all that is known. Touches nothing. Any thread.
 */
bool ram_scan_touched(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t end,
                      uint64_t *until);

/*
 * Destination: makes a range read as zero. What is not resident stays so; what
 * is zero already is not written; nothing is unmapped, for the memory may be
 * registered with an RDMA device. The caller has checked the bounds. Any thread.
 */
void ram_scan_zero(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length);
/*
 * The same for private anonymous memory that nobody has registered or pinned: what is
 * resident is given back, unless it is too little to be worth a system call, or a handler of
 * userfaultfd would have to be asked. No thread may write to the range meanwhile.
 */
void ram_scan_release(RamScan *scan, const VmfRamBlock *block, uint64_t offset, uint64_t length);

#endif
