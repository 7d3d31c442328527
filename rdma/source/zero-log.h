/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-log.h -- source: pages that the destination is told are zero */

#ifndef VMF_RDMA_ZERO_LOG_H
#define VMF_RDMA_ZERO_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vmferry/ram.h>
#include "wire.h"

/*
 * An RDMA write may land before the destination has read an earlier zero message. Then the zero
 * message would wipe out newer data. So the source marks the pages that it calls zero. A write to a
 * marked page waits until the destination has dealt with every zero message.
 *
 * The other order needs care only for a write that still waits for its chunk. A posted write has
 * landed when the destination reads a later message. A listed write is posted before the message.
 */

/* --- the ranges of the next message; the channel's thread --- */

typedef struct ZeroLog {
    uint8_t *body; /* body of the message to send next: ranges as in WIRE_ZERO */
    size_t bytes, room;
    uint64_t work;  /* bytes of RAM that the ranges name */
    bool sent;      /* a zero message was sent that is not known to be acknowledged */
    uint32_t until; /* the endpoint's count of sent messages right after the latest zero message */
} ZeroLog;

/* `body_bytes' is the room in a message. */
void zero_log_init(ZeroLog *log, size_t body_bytes);
void zero_log_clear(ZeroLog *log);
/* Whether the ranges could keep the destination busy for longer than a heartbeat. */
bool zero_log_is_long(const ZeroLog *log);
/* Whether there is no room for one more range. */
bool zero_log_is_full(const ZeroLog *log);
/*
 * Counts the range's work. Adds the range to the last one if it follows that one directly. False if
 * it does not.
 */
bool zero_log_extend(ZeroLog *log, const WireRange *range);
/* Adds a range that zero_log_extend has refused. The log must not be full. */
void zero_log_append(ZeroLog *log, const WireRange *range);
/* Takes the oldest range off the log. There must be one. */
void zero_log_take_first(ZeroLog *log, WireRange *range);
/* Empties the log, which was sent as the endpoint's counted message number `sent'. */
void zero_log_was_sent(ZeroLog *log, uint32_t sent);
/*
 * Whether the destination has dealt with every zero message. `processed' is how many messages it
 * has dealt with.
 */
bool zero_log_acknowledged(ZeroLog *log, uint32_t processed);

/* --- marks of the pages that were told, for all channels; a page belongs to one channel --- */

/* The marks of a connection. The marks of a block are allocated when its first page is marked. */
uint8_t **zero_marks_new(unsigned block_count);
/* NULL is allowed. */
void zero_marks_free(uint8_t **marks, unsigned block_count);
/* Marks a range of block number `block'; false if all of it is marked already. */
bool zero_marks_set(uint8_t **marks, unsigned block, const VmfRamBlock *ram, uint64_t offset,
                    uint64_t length);
/* Whether any page of the range is marked in the marks of its block. Removes these marks. */
bool zero_marks_unmark(uint8_t *marks, uint64_t offset, uint64_t length);

/* The same for a range of block number `block', which may have no marks yet. */
static inline bool zero_marks_take(uint8_t **marks, unsigned block, uint64_t offset,
                                   uint64_t length)
{
    uint8_t *of_block = g_atomic_pointer_get(&marks[block]);

    return of_block && zero_marks_unmark(of_block, offset, length);
}

#endif
