/* SPDX-License-Identifier: BSD-2-Clause */
/* stream-ring.c -- one direction of a session's byte stream: a ring, with the syncs of its bytes */

#include "stream-ring.h"

#include <string.h>

void stream_clear(StreamRing *ring)
{
    g_queue_clear_full(&ring->marks, g_free);
    g_clear_pointer(&ring->data, g_free);
}

uint64_t stream_newest_sync(const StreamRing *ring)
{
    const StreamMark *last = g_queue_peek_tail((GQueue *)&ring->marks);

    return last ? last->sync : ring->sync;
}

static size_t place_of(const StreamRing *ring, uint64_t position)
{
    return (size_t)((position - ring->origin) % STREAM_RING);
}

void stream_put(StreamRing *ring, const void *data, size_t size, uint64_t sync)
{
    size_t at, first;

    g_assert(size <= stream_room(ring));
    if (!ring->data) {
        ring->data = g_malloc(STREAM_RING);
    }
    if (sync > stream_newest_sync(ring) && ring->marks.length == STREAM_MARKS_MAX) {
        /*
         * Some earlier bytes wait longer than they need. That sync is on its way with these bytes.
         */
        ((StreamMark *)g_queue_peek_tail(&ring->marks))->sync = sync;
    } else if (sync > stream_newest_sync(ring)) {
        StreamMark *mark = g_new(StreamMark, 1);

        *mark = (StreamMark){.position = ring->head, .sync = sync};
        g_queue_push_tail(&ring->marks, mark);
    }
    if (ring->head == ring->tail) {
        ring->origin = ring->head;
    }
    at = place_of(ring, ring->head);
    first = MIN(size, STREAM_RING - at);
    memcpy(ring->data + at, data, first);
    memcpy(ring->data, (const uint8_t *)data + first, size - first);
    ring->head += size;
}

/* Applies the marks that the tail has reached. */
static void pass_marks(StreamRing *ring)
{
    StreamMark *mark;

    while ((mark = g_queue_peek_head(&ring->marks)) && mark->position <= ring->tail) {
        ring->sync = mark->sync;
        g_free(g_queue_pop_head(&ring->marks));
    }
}

size_t stream_readable(StreamRing *ring, uint64_t seen)
{
    pass_marks(ring);
    if (ring->sync > seen) {
        return 0;
    }
    for (GList *at = ring->marks.head; at; at = at->next) {
        const StreamMark *mark = at->data;
        if (mark->sync > seen) {
            return (size_t)(mark->position - ring->tail);
        }
    }
    return (size_t)(ring->head - ring->tail);
}

size_t stream_piece(StreamRing *ring, size_t most, const uint8_t **data, uint64_t *sync)
{
    const StreamMark *mark;
    size_t at = place_of(ring, ring->tail);
    uint64_t size = MIN(ring->head - ring->tail, STREAM_RING - at);

    pass_marks(ring);
    mark = g_queue_peek_head(&ring->marks);
    if (mark) {
        size = MIN(size, mark->position - ring->tail);
    }
    *data = ring->data + at;
    *sync = ring->sync;
    return (size_t)MIN(size, most);
}

void stream_take(StreamRing *ring, void *into, size_t size)
{
    size_t at = place_of(ring, ring->tail);
    size_t first = MIN(size, STREAM_RING - at);

    g_assert(size <= ring->head - ring->tail);
    if (into && size) {
        memcpy(into, ring->data + at, first);
        memcpy((uint8_t *)into + first, ring->data, size - first);
    }
    ring->tail += size;
    pass_marks(ring);
}
