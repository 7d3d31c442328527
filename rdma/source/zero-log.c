/* SPDX-License-Identifier: BSD-2-Clause */
/* zero-log.c -- source: pages that the destination is told are zero */

#include "zero-log.h"

#include <string.h>

/* --- the ranges of the next message --- */

/*
 * Bytes that one message may name. A destination must write them all, or read them from swap. That
 * must not take much longer than a heartbeat.
 */
#define ZERO_WORK_MAX (256ull << 20)

void zero_log_init(ZeroLog *log, size_t body_bytes)
{
    log->room = body_bytes / WIRE_RANGE_BYTES * WIRE_RANGE_BYTES;
    log->body = g_malloc(log->room);
}

void zero_log_clear(ZeroLog *log)
{
    g_clear_pointer(&log->body, g_free);
}

bool zero_log_is_long(const ZeroLog *log)
{
    return log->work >= ZERO_WORK_MAX;
}

bool zero_log_is_full(const ZeroLog *log)
{
    return log->bytes + WIRE_RANGE_BYTES > log->room;
}

bool zero_log_extend(ZeroLog *log, const WireRange *range)
{
    uint8_t *at;
    WireRange last;

    log->work += range->length;
    if (!log->bytes) {
        return false;
    }
    at = log->body + log->bytes - WIRE_RANGE_BYTES;
    wire_range_decode(at, 0, &last);
    if (last.block != range->block || last.offset + last.length != range->offset ||
        range->length > UINT32_MAX - last.length) {
        return false;
    }
    last.length += range->length;
    wire_range_encode(&last, at);
    return true;
}

void zero_log_append(ZeroLog *log, const WireRange *range)
{
    wire_range_encode(range, log->body + log->bytes);
    log->bytes += WIRE_RANGE_BYTES;
}

void zero_log_take_first(ZeroLog *log, WireRange *range)
{
    wire_range_decode(log->body, 0, range);
    log->bytes -= WIRE_RANGE_BYTES;
    memmove(log->body, log->body + WIRE_RANGE_BYTES, log->bytes);
}

void zero_log_was_sent(ZeroLog *log, uint32_t sent)
{
    log->bytes = 0;
    log->work = 0;
    log->sent = true;
    log->until = sent;
}

bool zero_log_acknowledged(ZeroLog *log, uint32_t processed)
{
    if (log->sent && (int32_t)(processed - log->until) >= 0) {
        log->sent = false;
    }
    return !log->sent;
}

/* --- marks --- */

/*
 * A bit for each page of 4 KiB. A byte of marks belongs to one channel, because a stripe is at
 * least 64 KiB.
 */
#define MARK_SHIFT 12

static uint8_t *block_marks(uint8_t **all, unsigned block, const VmfRamBlock *ram)
{
    uint8_t *marks = g_atomic_pointer_get(&all[block]);

    if (!marks) {
        uint8_t *fresh = g_malloc0((ram->length >> (MARK_SHIFT + 3)) + 1);
        if (g_atomic_pointer_compare_and_exchange(&all[block], NULL, fresh)) {
            return fresh;
        }
        g_free(fresh); /* another channel was faster */
        marks = g_atomic_pointer_get(&all[block]);
    }
    return marks;
}

static void mark(uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        if ((page & 7) == 0 && last - page >= 7) {
            marks[page >> 3] = 0xff;
            page += 7;
        } else {
            marks[page >> 3] |= (uint8_t)(1u << (page & 7));
        }
    }
}

bool zero_marks_unmark(uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;
    bool any = false;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        uint8_t *byte = &marks[page >> 3];

        if (!*byte) {
            page |= 7;
        } else if (*byte & (1u << (page & 7))) {
            any = true;
            *byte &= (uint8_t) ~(1u << (page & 7));
        }
    }
    return any;
}

/* Whether the destination was told already that all of the range is zero. */
static bool all_marked(const uint8_t *marks, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> MARK_SHIFT;

    for (uint64_t page = offset >> MARK_SHIFT; page <= last; page++) {
        if ((page & 7) == 0 && last - page >= 7 && marks[page >> 3] == 0xff) {
            page += 7;
        } else if (!(marks[page >> 3] & (1u << (page & 7)))) {
            return false;
        }
    }
    return true;
}

uint8_t **zero_marks_new(unsigned block_count)
{
    return g_new0(uint8_t *, MAX(block_count, 1));
}

void zero_marks_free(uint8_t **marks, unsigned block_count)
{
    for (unsigned i = 0; marks && i < block_count; i++) {
        g_free(marks[i]);
    }
    g_free(marks);
}

bool zero_marks_set(uint8_t **marks, unsigned block, const VmfRamBlock *ram, uint64_t offset,
                    uint64_t length)
{
    uint8_t *of_block = block_marks(marks, block, ram);

    /* With smaller pages, a range could have marked a 4 KiB page for only a part of it. */
    if (ram->page_size >= 1u << MARK_SHIFT && all_marked(of_block, offset, length)) {
        return false;
    }
    mark(of_block, offset, length);
    return true;
}
