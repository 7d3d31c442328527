/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-regions.h -- what a destination registers for stock QEMU, which does not say how much it will
 * write
 *
 * A request names an address and means the source's whole chunk around it:
 * 1 MiB, or x-rdma-chunk-size (up to 1 GiB), which no message tells. A write
 * outside what was registered would end the migration. But a source asks once
 * for a chunk, so two requests bound its size: they are for two chunks. Until
 * then the most is registered that it may be, then no more than it can be.
 *
 * Memory that is registered is pinned, and then looks touched. What it was
 * before is remembered: where the source has not asked for a chunk it has not
 * written, and memory that was never touched is zero still.
 */
#ifndef VMF_RDMA_V1_REGIONS_H
#define VMF_RDMA_V1_REGIONS_H

#include <vmferry/plugin/transport.h>
#include "verbs/chunks.h"

typedef struct V1Regions V1Regions;

/* Blocks are conn->blocks, which must stay. `most': the largest chunk of a source's, a power of
 * two. NULL with *error: no memory for the account of blocks as long as the source says. */
V1Regions *v1_regions_new(VmfConn *conn, struct ibv_pd *pd, uint64_t most, GError **error);
/* Gives up every registration. */
void v1_regions_free(V1Regions *regions);

/*
 * The region for a request at `offset' for that many chunks of 1 MiB after the
 * first; inside the block. NULL with *error: it cannot be pinned, or is longer
 * than `most' allows (VMF_ERROR_UNSUPPORTED).
 */
struct ibv_mr *v1_regions_ask(V1Regions *regions, unsigned block, uint64_t offset, uint64_t chunks,
                              VmfChannelCounters *counters, GError **error);

/* Whether something is registered at that byte. */
bool v1_regions_registered(const V1Regions *regions, unsigned block, uint64_t offset);

/* Makes a range zero, by host->zero_range; what is known to be zero is not looked at. */
bool v1_regions_zero(V1Regions *regions, unsigned block, uint64_t offset, uint64_t length,
                     GError **error);

/*
 * The largest chunk size, at most `most' MiB, that two requests allow. No chunk of that size holds
 * both number `mib' and another one that is marked in `asked'. `asked' has a bit for each of
 * `count' MiB of a block. `mib' itself may be marked.
 */
uint64_t v1_regions_bound(const uint8_t *asked, uint64_t count, uint64_t mib, uint64_t most);

#endif
