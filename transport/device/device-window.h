/* SPDX-License-Identifier: BSD-2-Clause */
/* device-window.h -- the memory that a destination keeps for the buffers of a device */

#ifndef VMF_DEVICE_WINDOW_H
#define VMF_DEVICE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>
#include <vmferry/plugin/transport.h>

/* A place in a window, or this: larger than the window, so in memory of its own, and alone. */
#define DEVICE_NO_PLACE VMF_DEVICE_NO_PLACE
/* Places in a window, and windows, begin at multiples of this. */
#define DEVICE_ALIGN 64u

/*
 * Flow control. For each device the destination keeps a window of memory, into
 * which the source places its buffers, in a ring: they are given back in the
 * order of their index. So a buffer is never sent that has no place to go, no
 * channel ever waits for a device, and no device for another. A buffer larger
 * than the window goes alone, in memory of its own; these have a bound for all
 * devices together, which the source keeps and the destination checks: there a
 * device can wait for another. One larger than that bound goes when there is no other.
 */
typedef struct DeviceSpan {
    uint64_t place, size; /* size 0: not in the window */
} DeviceSpan;

/* Places that are taken, oldest first. */
typedef struct DeviceRing {
    uint64_t bytes;
    unsigned most;
    DeviceSpan *spans;
    unsigned first, count;
} DeviceRing;

/* false: no memory. */
bool device_ring_init(DeviceRing *ring, uint64_t bytes, unsigned most);
void device_ring_clear(DeviceRing *ring);
/* Whether a buffer of that many bytes is larger than the window. */
bool device_ring_is_smaller(const DeviceRing *ring, uint64_t size);
/* A place for that many bytes, DEVICE_NO_PLACE for a buffer that goes alone; false: none now. */
bool device_ring_take(DeviceRing *ring, uint64_t size, uint64_t *place);
/* Gives the oldest back. */
void device_ring_give(DeviceRing *ring);

#endif
