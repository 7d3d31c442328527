/* SPDX-License-Identifier: BSD-2-Clause */
/* renewal.h -- source: memory that was discarded is registered once more, as it is now */

#ifndef VMF_RDMA_RENEWAL_H
#define VMF_RDMA_RENEWAL_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "verbs/chunks.h"
#include "conn.h"

/*
 * After a notice (see discards.h): sees to it that a byte of a ready chunk is registered as its
 * memory is now. *ready is false while writes to the chunk are under way or listed: the caller
 * posts them, and asks for a completion.
 */
bool renewal_make(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                  GError **error);
/* With pin-all, the stripe's own registration that has taken the place of its chunk's; or NULL. */
static inline Chunk *renewal_stripe(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    const Chunks *stripes = __atomic_load_n(&conn->stripes, __ATOMIC_ACQUIRE);
    Chunk *stripe = stripes ? &stripes->chunks[chunks_id(stripes, block, offset)] : NULL;

    return stripe && stripe->mr ? stripe : NULL;
}
/* Gives up every registration of stripes. */
void renewal_clear(RdmaConn *conn);

#endif
