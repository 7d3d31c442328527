/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-ranges.h -- ranges that the source calls zero, and the memory that they save */

#ifndef VMF_RDMA_ZERO_RANGES_H
#define VMF_RDMA_ZERO_RANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <gio/gio.h>

struct RdmaChannel;

/*
 * On the destination, in the channel's thread. With chunk registration, a chunk that holds nothing
 * but zero is never registered. If its memory was made resident ahead, it is given back to the
 * system. Only the sync after the source's pass over RAM shows which chunks hold nothing else.
 * Until then ranges wait in a list. Otherwise memory could be given back that the registration of
 * its chunk allocates again. Nobody reads RAM before the sync, and nobody writes unregistered RAM.
 */

/*
 * Takes a range from the wire, and checks it. The range waits, or is zeroed at once. False with
 * *error, as for all below.
 */
bool zero_ranges_take(struct RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length,
                      GError **error);
/* Call it before this chunk is registered. Zeroes the ranges that wait in the chunk. */
bool zero_ranges_before_registration(struct RdmaChannel *channel, unsigned block, uint32_t index,
                                     GError **error);
/* Call it before a sync is reported. Gives the memory of all ranges back that still wait. */
bool zero_ranges_settle(struct RdmaChannel *channel, GError **error);
/* Frees the list, without a look at the ranges. */
void zero_ranges_clear(struct RdmaChannel *channel);

#endif
