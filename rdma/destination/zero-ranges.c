/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-ranges.c -- ranges that the source calls zero, and the memory that they save */

#include "zero-ranges.h"

#include "rdma-conn.h"
#include "serving.h"

/* At most so many ranges wait, because a registration looks at all of them. */
#define WAITING_MAX 256

/* A range that waits. It lies in one chunk. */
typedef struct ZeroRange {
    uint32_t block, index; /* of the chunk */
    uint64_t offset, end;  /* in the block */
} ZeroRange;

/*
 * Whether a range in this chunk may wait. Only the channel that owns the chunk may look at its
 * state.
 */
static bool may_wait(const RdmaChannel *channel, unsigned block, uint32_t index)
{
    const Chunks *chunks = &channel->conn->chunks;

    return (index + block) % channel->conn->base.channels == channel->number &&
           !chunks->chunks[chunks->first[block] + index].mr;
}

/* Works in parts, because a source may name gigabytes at once. */
static bool in_parts(RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length,
                     bool (*zero)(VmfConn *, unsigned, uint64_t, uint64_t, GError **),
                     GError **error)
{
    VmfConn *base = &channel->conn->base;

    do {
        const uint64_t part = MIN(length, SERVE_PART_BYTES);

        if (!zero(base, block, offset, part, error) || !serve_alive(channel, error)) {
            return false;
        }
        offset += part;
        length -= part;
    } while (length);
    return true;
}

static bool keep_waiting(RdmaChannel *channel, const ZeroRange *range, GError **error)
{
    GArray *waiting = channel->zero_waiting;
    ZeroRange *last =
        waiting && waiting->len ? &g_array_index(waiting, ZeroRange, waiting->len - 1) : NULL;

    if (last && last->block == range->block && last->index == range->index &&
        last->end == range->offset) {
        last->end = range->end;
        return true;
    }
    if (!waiting) {
        waiting = channel->zero_waiting =
            g_array_sized_new(FALSE, FALSE, sizeof(ZeroRange), WAITING_MAX);
    }
    g_array_append_val(waiting, *range);
    return waiting->len < WAITING_MAX || zero_ranges_settle(channel, error);
}

bool zero_ranges_take(RdmaChannel *channel, unsigned block, uint64_t offset, uint64_t length,
                      GError **error)
{
    VmfConn *base = &channel->conn->base;
    const unsigned shift = channel->conn->chunks.shift;
    const uint64_t end = offset + length;

    if (channel->conn->options.registration != RDMA_REGISTRATION_CHUNK) {
        return base->host->ram_range(base, block, offset, length, error) &&
               in_parts(channel, block, offset, length, base->host->zero_range, error);
    }
    if (!base->host->ram_range(base, block, offset, length, error)) {
        return false;
    }
    for (uint64_t at = offset, until; at < end; at = until) {
        const uint32_t index = (uint32_t)(at >> shift);

        until = MIN((uint64_t)(index + 1) << shift, end);
        if (!(may_wait(channel, block, index)
                  ? keep_waiting(channel, &(ZeroRange){block, index, at, until}, error)
                  : in_parts(channel, block, at, until - at, base->host->zero_range, error))) {
            return false;
        }
    }
    return true;
}

bool zero_ranges_before_registration(RdmaChannel *channel, unsigned block, uint32_t index,
                                     GError **error)
{
    VmfConn *base = &channel->conn->base;
    GArray *waiting = channel->zero_waiting;

    for (unsigned i = waiting ? waiting->len : 0; i-- > 0;) {
        const ZeroRange range = g_array_index(waiting, ZeroRange, i);

        if (range.block == block && range.index == index) {
            g_array_remove_index_fast(waiting, i);
            if (!in_parts(channel, block, range.offset, range.end - range.offset,
                          base->host->zero_range, error)) {
                return false;
            }
        }
    }
    return true;
}

bool zero_ranges_settle(RdmaChannel *channel, GError **error)
{
    VmfConn *base = &channel->conn->base;
    GArray *waiting = channel->zero_waiting;

    for (unsigned i = 0; waiting && i < waiting->len; i++) {
        const ZeroRange *range = &g_array_index(waiting, ZeroRange, i);

        if (!in_parts(channel, range->block, range->offset, range->end - range->offset,
                      base->host->release_range, error)) {
            return false;
        }
    }
    if (waiting) {
        g_array_set_size(waiting, 0);
    }
    return true;
}

void zero_ranges_clear(RdmaChannel *channel)
{
    g_clear_pointer(&channel->zero_waiting, g_array_unref);
}
