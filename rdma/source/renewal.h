/* SPDX-License-Identifier: BSD-2-Clause */
/* renewal.h -- source: registers discarded memory once more, as it is now */

#ifndef VMF_RDMA_RENEWAL_H
#define VMF_RDMA_RENEWAL_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "verbs/chunks.h"
#include "rdma-conn.h"

/*
 * For a byte of a ready chunk, after a notice (see discards.h). Registers the memory of the byte
 * anew if it was discarded. *ready is false while writes that use the old registration are listed
 * or under way. Then the caller posts them, asks for a completion and calls again later. The
 * channel's thread. False with *error.
 */
bool renewal_make(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                  GError **error);
/*
 * With pin-all: the registration of a discarded stripe, which replaces that of its chunk. NULL if
 * the stripe has none of its own.
 */
static inline Chunk *renewal_stripe(const RdmaConn *conn, unsigned block, uint64_t offset)
{
    const Chunks *stripes = __atomic_load_n(&conn->stripes, __ATOMIC_ACQUIRE);
    Chunk *stripe = stripes ? &stripes->chunks[chunks_id(stripes, block, offset)] : NULL;

    return stripe && stripe->mr ? stripe : NULL;
}
/* Gives up every registration of stripes. No channel may run any more. */
void renewal_clear(RdmaConn *conn);

#endif
