/* SPDX-License-Identifier: BSD-2-Clause */
/* device-window.c -- places for buffers in a device's window, given back in the order taken */

#include "device-window.h"

#include "base/fault.h"

bool device_ring_init(DeviceRing *ring, uint64_t bytes, unsigned most)
{
    *ring = (DeviceRing){.bytes = bytes,
                         .most = most,
                         .spans = VMF_FAULT("device ring") ? NULL : g_try_new0(DeviceSpan, most)};
    return ring->spans != NULL;
}

void device_ring_clear(DeviceRing *ring)
{
    g_clear_pointer(&ring->spans, g_free);
    ring->count = 0;
}

static const DeviceSpan *span_at(const DeviceRing *ring, unsigned i)
{
    return &ring->spans[(ring->first + i) % ring->most];
}

/* Finds `size' bytes of free memory in one piece, between the newest place and the oldest. */
static bool find_place(const DeviceRing *ring, uint64_t size, uint64_t *place)
{
    const DeviceSpan *oldest = NULL, *newest = NULL;
    uint64_t end;

    for (unsigned i = 0; i < ring->count; i++) {
        if (span_at(ring, i)->size) {
            newest = span_at(ring, i);
            oldest = oldest ? oldest : newest;
        }
    }
    if (!newest) {
        *place = 0;
        return true;
    }
    end = newest->place + newest->size;
    if (newest->place >= oldest->place) { /* free: after the newest, and before the oldest */
        *place = ring->bytes - end >= size ? end : 0;
        return ring->bytes - end >= size || size <= oldest->place;
    }
    *place = end;
    return oldest->place - end >= size;
}

static uint64_t rounded_up(uint64_t size)
{
    return (size + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
}

bool device_ring_is_smaller(const DeviceRing *ring, uint64_t size)
{
    return rounded_up(size) > ring->bytes;
}

bool device_ring_take(DeviceRing *ring, uint64_t size, uint64_t *place)
{
    const uint64_t rounded = rounded_up(size);
    DeviceSpan span = {.place = DEVICE_NO_PLACE};

    if (ring->count == ring->most || (ring->count && !span_at(ring, 0)->size)) {
        return false; /* full, or a buffer outside the window is under way */
    }
    if (rounded > ring->bytes) {
        if (ring->count) {
            return false;
        }
    } else if (find_place(ring, rounded, &span.place)) {
        span.size = rounded;
    } else {
        return false;
    }
    ring->spans[(ring->first + ring->count) % ring->most] = span;
    ring->count++;
    *place = span.place;
    return true;
}

void device_ring_give(DeviceRing *ring)
{
    g_assert(ring->count);
    ring->first = (ring->first + 1) % ring->most;
    ring->count--;
}
