/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-log.h -- source: which pages the destination is told are zero, and has dealt with */

#ifndef VMF_RDMA_ZERO_LOG_H
#define VMF_RDMA_ZERO_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vmferry/ram.h>
#include "wire.h"

/*
 * An RDMA write may land before the destination has read a zero message that
 * was sent earlier, which would then wipe out newer data. So pages told to be
 * zero are marked, and a write to a marked page waits until every zero message
 * was dealt with. The reverse needs care only for a write that still waits for
 * its chunk: one that was posted is over when a later message is read, and one that is
 * listed is posted before the message.
 */

/* --- what is told: the ranges of the next message. The channel's thread. --- */

typedef struct ZeroLog {
    uint8_t *body; /* of the message being filled: ranges as in WIRE_ZERO */
    size_t bytes, room;
    uint64_t work;  /* bytes of RAM that it names */
    bool sent;      /* some zero message went out since all were acknowledged */
    uint32_t until; /* endpoint's count of sent messages right after the latest */
} ZeroLog;

/* `body_bytes': what a message has room for. */
void zero_log_init(ZeroLog *log, size_t body_bytes);
void zero_log_clear(ZeroLog *log);
/* Whether it names so much that the destination would be busy for longer than a heartbeat. */
bool zero_log_is_long(const ZeroLog *log);
/* Whether there is no room for one more range. */
bool zero_log_is_full(const ZeroLog *log);
/* Counts the range's work, and adds it to the last range if it follows that; false if not. */
bool zero_log_extend(ZeroLog *log, const WireRange *range);
/* One more range, which zero_log_extend has refused; the log is not full. */
void zero_log_append(ZeroLog *log, const WireRange *range);
/* Takes the oldest range off it; there is one. */
void zero_log_take_first(ZeroLog *log, WireRange *range);
/* All of it went out, as the endpoint's counted message number `sent'. */
void zero_log_was_sent(ZeroLog *log, uint32_t sent);
/* Whether the destination, which has dealt with that many messages, has dealt with all zeros. */
bool zero_log_acknowledged(ZeroLog *log, uint32_t processed);

/* --- what was told: marks, for all channels. A page is one channel's. --- */

/* The marks of a connection, of each block; they are made when a block's first page is marked. */
uint8_t **zero_marks_new(unsigned block_count);
/* NULL is allowed. */
void zero_marks_free(uint8_t **marks, unsigned block_count);
/* Marks a range of block number `block'; false if all of it is marked already. */
bool zero_marks_set(uint8_t **marks, unsigned block, const VmfRamBlock *ram, uint64_t offset,
                    uint64_t length);
/* Whether any page of the range is marked, in the marks of its block; forgets them. */
bool zero_marks_unmark(uint8_t *marks, uint64_t offset, uint64_t length);

/* The same of a range of block number `block', which may have no marks. */
static inline bool zero_marks_take(uint8_t **marks, unsigned block, uint64_t offset,
                                   uint64_t length)
{
    uint8_t *of_block = g_atomic_pointer_get(&marks[block]);

    return of_block && zero_marks_unmark(of_block, offset, length);
}

#endif
