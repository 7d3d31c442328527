/* SPDX-License-Identifier: BSD-2-Clause */
/* renewal.c -- source: registers discarded memory once more, as it is now */

#include "renewal.h"

#include "discards.h"
#include "verbs/memory-lock.h"

/*
 * With all RAM pinned, a chunk belongs to several channels, whose writes are under way to it. So
 * the registration of the chunk stays as it is. The channel that owns a discarded stripe registers
 * the stripe alone once more.
 */
static Chunks *stripes(RdmaConn *conn, GError **error)
{
    Chunks *chunks = g_atomic_pointer_get(&conn->stripes), *fresh;

    if (chunks) {
        return chunks;
    }
    fresh = g_new0(Chunks, 1);
    if (!chunks_init(fresh, conn->base.blocks, conn->base.block_count, conn->chunks.pd,
                     conn->base.stripe, conn->chunks.access, error)) {
        chunks_clear(fresh);
        g_free(fresh);
        return NULL;
    }
    if (g_atomic_pointer_compare_and_exchange(&conn->stripes, NULL, fresh)) {
        return fresh;
    }
    chunks_clear(fresh); /* another channel was faster */
    g_free(fresh);
    return g_atomic_pointer_get(&conn->stripes);
}

static bool register_anew(RdmaChannel *channel, Chunks *chunks, unsigned block, uint32_t index,
                          GError **error)
{
    int err;

    chunks_unregister(chunks, block, index, channel->counters);
    err = chunks_register(chunks, block, index, channel->counters);
    if (err) {
        g_autofree char *what =
            g_strdup_printf("RAM block \"%s\" again, which was discarded in part, on %s",
                            chunks->blocks[block]->name, channel->ep->name);

        memlock_error(error, err, chunks_length(chunks, block, index), what,
                      channel->registrar.dynamic);
    }
    return err == 0;
}

bool renewal_make(RdmaChannel *channel, unsigned block, uint64_t offset, bool *ready,
                  GError **error)
{
    RdmaConn *conn = channel->conn;
    const bool fresh = discards_take(&conn->discards, block, offset);
    Chunks *chunks = channel->registrar.dynamic ? &conn->chunks
                     : fresh                    ? stripes(conn, error)
                                                : g_atomic_pointer_get(&conn->stripes);
    Chunk *chunk;

    *ready = true;
    if (!chunks) {
        return !fresh;
    }
    chunk = &chunks->chunks[chunks_id(chunks, block, offset)];
    chunk->stale |= fresh;
    if (!chunk->stale) {
        return true;
    }
    if (chunk->mr && chunk->last_request > channel->ep->completed) {
        *ready = false;
        return true;
    }
    chunk->stale = false;
    return register_anew(channel, chunks, block, (uint32_t)(offset >> chunks->shift), error);
}

void renewal_clear(RdmaConn *conn)
{
    if (conn->stripes) {
        chunks_clear(conn->stripes);
        g_clear_pointer(&conn->stripes, g_free);
    }
}
