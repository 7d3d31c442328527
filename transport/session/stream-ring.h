/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-ring.h -- one direction of a session's byte stream: a ring, with the syncs of its bytes */

#ifndef VMF_STREAM_RING_H
#define VMF_STREAM_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/* Bytes that may be under way or wait to be read. Both sides use the same number. */
#define STREAM_RING (1024u * 1024)
/* A peer may give each byte its own sync, so that marks would cost many times the ring's memory. */
#define STREAM_MARKS_MAX 16384

/*
 * Positions count the stream's bytes from 0. A mark says from where on bytes need a sync: they may
 * be read after every channel has seen it. The session's lock guards the ring.
 */
typedef struct StreamRing {
    uint8_t *data; /* allocated at the first use */
    uint64_t head; /* put so far */
    uint64_t tail; /* taken so far */
    GQueue marks;  /* StreamMark, owned, ascending */
    uint64_t sync; /* the sync that the bytes at tail need */
    /*
     * The position at the start of `data'. An empty ring begins there, in memory that is in use
     * already.
     */
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
/* Adds bytes that need `sync'. The caller has checked that there is room. */
void stream_put(StreamRing *ring, const void *data, size_t size, uint64_t sync);
/* The newest sync that any byte so far needs. */
uint64_t stream_newest_sync(const StreamRing *ring);
/* How many bytes at the tail may be taken if `seen' is the newest sync that was seen. */
size_t stream_readable(StreamRing *ring, uint64_t seen);
/* Finds a piece of at most `most' bytes at the tail that all need the same sync: *sync. */
size_t stream_piece(StreamRing *ring, size_t most, const uint8_t **data, uint64_t *sync);
/* Takes `size' bytes off, and copies them to `into' unless it is NULL. */
void stream_take(StreamRing *ring, void *into, size_t size);

#endif
