/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-regions.h -- what a destination registers for stock QEMU, which does not tell its chunk size
 *
 * A request names an address, and means the source's whole chunk around that address. A chunk has 1
 * MiB, or x-rdma-chunk-size (up to 1 GiB), which no message tells. A write outside the registered
 * memory would end the migration. But a source asks for a chunk only once. So two requests are for
 * two chunks, and bound their size. At first, the destination registers the largest chunk that is
 * allowed. Later it registers no more than a chunk can have.
 *
 * Registered memory is pinned, and then looks touched. So the destination remembers which pages
 * were untouched before. The source has not written a chunk that it has not asked for. Memory that
 * was never touched is still zero.
 */
#ifndef VMF_RDMA_V1_REGIONS_H
#define VMF_RDMA_V1_REGIONS_H

#include <vmferry/plugin/transport.h>
#include "verbs/chunks.h"

typedef struct V1Regions V1Regions;

/*
 * The regions of conn->blocks, which must stay, in the domain `pd'. `most' is the largest chunk
 * that a source may have, a power of two. NULL with *error if there is no memory for the tables.
 * Their size follows the lengths that the source tells.
 */
V1Regions *v1_regions_new(VmfConn *conn, struct ibv_pd *pd, uint64_t most, GError **error);
/* Gives up every registration, and frees the regions. NULL is allowed. */
void v1_regions_free(V1Regions *regions);

/*
 * The region for a request at `offset', for that many chunks of 1 MiB after the first. `offset' is
 * inside the block. The region stays with `regions'. NULL with *error if it cannot be pinned. The
 * error is VMF_ERROR_UNSUPPORTED if it is longer than `most' allows.
 */
struct ibv_mr *v1_regions_ask(V1Regions *regions, unsigned block, uint64_t offset, uint64_t chunks,
                              VmfChannelCounters *counters, GError **error);

/* Whether the memory at that byte is registered. */
bool v1_regions_registered(const V1Regions *regions, unsigned block, uint64_t offset);

/*
 * Makes a range zero, by zero_range or release_range of the host. Does not touch registered memory
 * that is known to be zero.
 */
bool v1_regions_zero(V1Regions *regions, unsigned block, uint64_t offset, uint64_t length,
                     GError **error);

/*
 * The largest chunk size, at most `most' MiB, that two requests allow. No chunk of that size holds
 * both number `mib' and another number that is marked in `asked'. `asked' has a bit for each of the
 * `count' MiB of a block. `mib' itself may be marked.
 */
uint64_t v1_regions_bound(const uint8_t *asked, uint64_t count, uint64_t mib, uint64_t most);

#endif
