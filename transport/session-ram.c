/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ram.c -- the RAM path: gathering ranges for the channels, fences and flushes */

#include <time.h>

#include "devices.h"
#include "session.h"

/*
 * Bytes that a payload gathers before it goes to its channel. Enough that the
 * hand-over (two threads woken) costs little beside the transfer, little enough
 * that the channel starts early.
 */
#define PAYLOAD_BYTES (16u * 1024 * 1024)

static void add(uint64_t *counter, uint64_t delta)
{
    __atomic_store_n(counter, *counter + delta, __ATOMIC_RELAXED);
}

static bool submit(VmfSession *s, SessionChannel *channel, GError **error)
{
    if (!mailbox_put(&channel->mailbox, &channel->fill)) {
        return session_report(s, error);
    }
    channel->fill->kind = PAYLOAD_EMPTY;
    return true;
}

bool session_submit_fill(VmfSession *s, SessionChannel *channel, GError **error)
{
    return channel->fill->kind == PAYLOAD_EMPTY || submit(s, channel, error);
}

/* Whether a range continues the last one, or ends so close behind it that the gap goes along. */
static bool extend(const VmfConn *conn, Payload *fill, uint32_t block, uint64_t offset,
                   uint64_t end)
{
    PayloadRange *last = &fill->ram.ranges[fill->ram.count - 1];
    uint64_t last_end = last->offset + last->length;
    uint64_t limit = conn->range_max ? conn->range_max : conn->stripe;

    if (last->block != block || offset < last->offset || offset > last_end + conn->merge_gap ||
        offset / conn->stripe != last->offset / conn->stripe ||
        MAX(end, last_end) - last->offset > limit) {
        return false;
    }
    if (end > last_end) {
        fill->ram.bytes += end - last_end;
        last->length = (uint32_t)(end - last->offset);
    }
    return true;
}

/* A range within one stripe. */
static bool add_range(VmfSession *s, uint32_t block, uint64_t offset, uint64_t length,
                      GError **error)
{
    VmfConn *conn = s->conn;
    /* Always the same channel for a stripe: its writes stay in order. */
    SessionChannel *channel = &s->channels[(offset / conn->stripe + block) % conn->channels];
    Payload *fill = channel->fill;

    if (fill->kind == PAYLOAD_EMPTY) {
        fill->kind = PAYLOAD_RAM;
        fill->ram.count = 0;
        fill->ram.bytes = 0;
    } else if (extend(conn, fill, block, offset, offset + length)) {
        return fill->ram.bytes < PAYLOAD_BYTES || submit(s, channel, error);
    }
    if (fill->ram.count == PAYLOAD_RANGES) {
        if (!submit(s, channel, error)) {
            return false;
        }
        return add_range(s, block, offset, length, error);
    }
    fill->ram.ranges[fill->ram.count++] =
        (PayloadRange){.block = block, .length = (uint32_t)length, .offset = offset};
    fill->ram.bytes += length;
    return fill->ram.bytes < PAYLOAD_BYTES || submit(s, channel, error);
}

/* The number of a block means something only in its own set, and as far as the session knows it. */
static bool is_known(const VmfSession *s, const VmfRamBlock *block)
{
    return block->index < s->conn->block_count && s->conn->blocks[block->index] == block;
}

bool session_save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                      unsigned flags, uint64_t *accounted, GError **error)
{
    VmfSession *s = opaque;
    const uint64_t stripe = s->conn->stripe;
    const uint64_t limit = s->conn->range_max ? s->conn->range_max : stripe;

    (void)flags;
    if (G_UNLIKELY(session_failed(s))) {
        return session_report(s, error);
    }
    if (G_UNLIKELY(!is_known(s, block))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" is none of those that the session was made with: it is of "
                    "another set, or was added too late",
                    block->name);
        return false;
    }
    if (s->qemu && s->hooks.state != QEMU_HOOKS_OPEN && !foreign_begin_ram(s, error)) {
        return false;
    }
    s->ram_since_sync = true;
    *accounted = length;
    add(&s->ram_bytes, length);
    while (length) {
        uint64_t part = MIN(MIN(length, stripe - (offset & (stripe - 1))), limit);

        if (!add_range(s, block->index, offset, part, error)) {
            return false;
        }
        offset += part;
        length -= part;
    }
    return true;
}

/* --- sync points --- */

static bool submit_sync(VmfSession *s, bool drain, GError **error)
{
    uint64_t number = s->sync_number + 1;

    for (unsigned i = 0; i < s->channel_count; i++) {
        SessionChannel *channel = &s->channels[i];

        if (!session_submit_fill(s, channel, error)) {
            return false;
        }
        channel->fill->kind = PAYLOAD_SYNC;
        channel->fill->sync.number = number;
        channel->fill->sync.drain = drain;
        if (!submit(s, channel, error)) {
            return false;
        }
    }
    g_mutex_lock(&s->lock);
    s->sync_number = number;
    s->out_sync = number;
    g_mutex_unlock(&s->lock);
    s->ram_since_sync = false;
    return true;
}

/* Waits until the latest sync went out on every channel and what was before it is written. */
static bool await_syncs(VmfSession *s, GError **error)
{
    bool ok;

    g_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->channel_count; i++) {
        while (!s->error && s->channels[i].sync_sent < s->sync_number) {
            g_cond_wait(&s->changed, &s->lock);
        }
    }
    ok = !s->error;
    g_mutex_unlock(&s->lock);
    return ok || session_report(s, error);
}

bool session_sync(VmfSession *s, bool drain, GError **error)
{
    return submit_sync(s, drain, error) && (!drain || await_syncs(s, error));
}

bool session_fence(VmfSession *s, GError **error)
{
    return !s->ram_since_sync || session_sync(s, false, error);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What waits for company goes now, unless its channel has enough to do anyway. */
static bool start_fills(VmfSession *s, GError **error)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        SessionChannel *channel = &s->channels[i];

        if (mailbox_has_room(&channel->mailbox) && !session_submit_fill(s, channel, error)) {
            return false;
        }
    }
    return true;
}

void session_update_channels_done(VmfSession *s)
{
    bool sending;

    g_mutex_lock(&s->lock);
    sending =
        s->devices && s->devices->started && devices_first_before_locked(s->devices, DEVICE_DONE);
    g_mutex_unlock(&s->lock);
    g_atomic_int_set(&s->conn->channels_done, s->ram_flushed && !sending);
}

bool session_flush_ram(void *opaque, VmfFlush how, unsigned flags, GError **error)
{
    VmfSession *s = opaque;
    uint64_t began;

    (void)flags;
    if (how == VMF_FLUSH_START) {
        return start_fills(s, error);
    }
    began = now_ns(); /* every other flush drains: the end of a round pays its own tail */
    if (!session_sync(s, true, error)) {
        return false;
    }
    if (how == VMF_FLUSH_FINAL) {
        s->ram_flushed = true;
        session_update_channels_done(s);
    }
    __atomic_store_n(&s->last_flush_ns, now_ns() - began, __ATOMIC_RELAXED);
    return true;
}
