/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-ranges.h -- ranges that the source calls zero, and memory that can be given back for it */

#ifndef VMF_RDMA_ZERO_RANGES_H
#define VMF_RDMA_ZERO_RANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <gio/gio.h>

struct RdmaChannel;

/*
 * Destination, the channel's thread. With chunk registration, a chunk that holds
 * nothing but zero is never registered. Its memory is given back to the system, if it was
 * made resident ahead. Which chunks hold nothing else is known at the sync after
 * the source's pass over RAM. Until then their ranges wait, because it would cost
 * twice to give back memory that the registration of the chunk makes again.
 * Nobody reads RAM before the sync, and nobody writes it unregistered.
 */

/* A range from the wire, checked here. */
bool zero_ranges_take(struct RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length,
                      GError **error);
/* This chunk is about to be registered: what waits in it is zeroed. */
bool zero_ranges_before_registration(struct RdmaChannel *channel, unsigned block, uint32_t index,
                                     GError **error);
/* Before a sync is reported: what still waits is given back. */
bool zero_ranges_settle(struct RdmaChannel *channel, GError **error);
void zero_ranges_clear(struct RdmaChannel *channel);

#endif
