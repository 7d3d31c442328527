/* SPDX-License-Identifier: BSD-2-Clause */
/* device-window.h -- the memory that a destination keeps for the buffers of a device */

#ifndef VMF_DEVICE_WINDOW_H
#define VMF_DEVICE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

/* The place of a buffer that is larger than the window: it has memory of its own, and is alone. */
#define DEVICE_NO_PLACE VMF_DEVICE_NO_PLACE
/* Windows, and places in them, begin at multiples of this. */
#define DEVICE_ALIGN 64u

/*
 * Back-pressure. For each device the destination keeps a window of memory. The source places its
 * buffers there in a ring, and they are given back in the order of their index. So no buffer is
 * sent without a place, no channel waits for a device, and no device for another. A buffer that is
 * larger than the window goes alone, in memory of its own. Such buffers have a bound for all
 * devices together, which the source keeps and the destination checks. There a device can wait for
 * another. A buffer that is larger than the bound goes when there is no other.
 */
typedef struct DeviceSpan {
    uint64_t place, size; /* size 0: outside the window */
} DeviceSpan;

/* The places that are taken, oldest first. */
typedef struct DeviceRing {
    uint64_t bytes;
    unsigned most;
    DeviceSpan *spans;
    unsigned first, count;
} DeviceRing;

/* `most' is the number of places. Returns false without memory. */
bool device_ring_init(DeviceRing *ring, uint64_t bytes, unsigned most);
void device_ring_clear(DeviceRing *ring);
/* Whether the window is smaller than a buffer of `size' bytes. */
bool device_ring_is_smaller(const DeviceRing *ring, uint64_t size);
/*
 * Takes a place for `size' bytes, or DEVICE_NO_PLACE for a buffer that goes alone. Returns false if
 * there is none now.
 */
bool device_ring_take(DeviceRing *ring, uint64_t size, uint64_t *place);
/* Gives back the oldest place. */
void device_ring_give(DeviceRing *ring);

#endif
