/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-ring.h -- one direction of a session's byte stream: a ring, with the syncs its bytes need
 */

#ifndef VMF_STREAM_RING_H
#define VMF_STREAM_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/* Bytes that may be on the way or wait to be read; both sides use the same number. */
#define STREAM_RING (1024u * 1024)
/* A peer may give each byte a sync of its own, which would cost many times the ring's memory. */
#define STREAM_MARKS_MAX 16384

/*
 * Positions count the stream's bytes from 0. A mark says that the bytes from
 * its position on may be read only when sync `sync' was seen on every channel.
 * No lock of its own: the session's guards it.
 */
typedef struct StreamRing {
    uint8_t *data; /* allocated at the first use */
    uint64_t head; /* put so far */
    uint64_t tail; /* taken so far */
    GQueue marks;  /* StreamMark, owned, ascending */
    uint64_t sync; /* in force for the bytes at tail */
    /* The position at the start of data. An empty ring begins there, in memory touched before. */
    uint64_t origin;
} StreamRing;

typedef struct StreamMark {
    uint64_t position, sync;
} StreamMark;

void stream_clear(StreamRing *ring);
static inline size_t stream_room(const StreamRing *ring)
{
    return STREAM_RING - (size_t)(ring->head - ring->tail);
}
/* Adds bytes that need `sync'; the caller has checked the room. */
void stream_put(StreamRing *ring, const void *data, size_t size, uint64_t sync);
/* The newest sync that any byte so far needs. */
uint64_t stream_newest_sync(const StreamRing *ring);
/* Bytes at the tail that may be taken when `seen' is the newest sync seen. */
size_t stream_readable(StreamRing *ring, uint64_t seen);
/* Bytes at the tail in one piece that all need the same sync, at most `most'; sets it. */
size_t stream_piece(StreamRing *ring, size_t most, const uint8_t **data, uint64_t *sync);
/* Takes `size' bytes off, copying them to `into' unless that is NULL. */
void stream_take(StreamRing *ring, void *into, size_t size);

#endif
