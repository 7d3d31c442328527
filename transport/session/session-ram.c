/* SPDX-License-Identifier: BSD-2-Clause */
/* session-ram.c -- the RAM path: gathering ranges for the channels, fences and flushes */

#include "session-ram.h"

#include <time.h>

#include "file/file-state.h"
#include "session-core.h"
#include "session-device.h"
#include "session-late-ram.h"

/*
 * Bounds for RAM that waits for the channels: it is gathered, in mailboxes, or with their threads.
 * The last flush waits for all of it. So all channels together have a bound, which is at most that
 * of RAM in flight. A payload is so large that handing it over (two threads are woken) costs
 * little. It is so small that the channels start early.
 */
#define QUEUE_BYTES (32ull * 1024 * 1024)
#define QUEUE_MIN (64ull * 1024)
#define PAYLOAD_BYTES (1024ull * 1024)

void session_bound_queue(VmfSession *s)
{
    const VmfConn *conn = s->conn;
    uint64_t bytes;

    s->ram.queue_max = MAX(MIN(QUEUE_BYTES, conn->max_inflight), QUEUE_MIN);
    s->ram.queue_limit = s->ram.queue_max;
    bytes = MAX(s->ram.queue_max / (3 * conn->channels), PAYLOAD_BYTES);
    bytes = MIN(bytes, s->ram.queue_max / 4);
    s->ram.payload_bytes = bytes - bytes % (bytes > conn->stripe ? conn->stripe : RAM_CUT);
    s->ram.range_bytes =
        MIN(conn->range_max ? conn->range_max : conn->stripe, s->ram.payload_bytes);
}

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

/*
 * Extends the last range, if this one continues it or follows after a gap worth sending. Returns
 * whether it did.
 */
static bool extend(VmfSession *s, Payload *fill, uint32_t block, uint64_t offset, uint64_t end,
                   bool zero)
{
    const VmfConn *conn = s->conn;
    PayloadRange *last = &fill->ram.ranges[fill->ram.count - 1];
    uint64_t last_end = last->offset + last->length;

    if (last->block != block || last->zero != zero || offset < last->offset ||
        offset > last_end + (zero ? 0 : conn->merge_gap) ||
        offset / conn->stripe != last->offset / conn->stripe ||
        MAX(end, last_end) - last->offset > s->ram.range_bytes) {
        return false;
    }
    if (end > last_end) {
        if (fill->ram.bytes + end - last_end > s->ram.payload_bytes) {
            return false;
        }
        fill->ram.bytes += end - last_end;
        s->ram.queue_taken += end - last_end;
        last->length = (uint32_t)(end - last->offset);
    }
    return true;
}

/* Adds a range of one stripe, of at most range_bytes. */
static bool add_range(VmfSession *s, uint32_t block, uint64_t offset, uint64_t length, bool zero,
                      GError **error)
{
    VmfConn *conn = s->conn;
    /* A stripe always has the same channel, so that its writes stay in order. */
    SessionChannel *channel = &s->channels[(offset / conn->stripe + block) % conn->channels];
    Payload *fill = channel->fill;

    if (fill->kind != PAYLOAD_EMPTY && extend(s, fill, block, offset, offset + length, zero)) {
        return fill->ram.bytes < s->ram.payload_bytes || submit(s, channel, error);
    }
    if (fill->kind != PAYLOAD_EMPTY &&
        (fill->ram.count == PAYLOAD_RANGES || fill->ram.bytes + length > s->ram.payload_bytes)) {
        if (!submit(s, channel, error)) {
            return false;
        }
        fill = channel->fill;
    }
    if (fill->kind == PAYLOAD_EMPTY) {
        fill->kind = PAYLOAD_RAM;
        fill->ram.count = 0;
        fill->ram.bytes = 0;
    }
    fill->ram.ranges[fill->ram.count++] = (PayloadRange){
        .block = block & 0x7fffffff, .zero = zero, .length = (uint32_t)length, .offset = offset};
    fill->ram.bytes += length;
    s->ram.queue_taken += length;
    return fill->ram.bytes < s->ram.payload_bytes || submit(s, channel, error);
}

/* --- what waits --- */

static uint64_t queued(VmfSession *s)
{
    return s->ram.queue_taken - __atomic_load_n(&s->counters.queue_done, __ATOMIC_SEQ_CST);
}

void session_ram_done(VmfSession *s, uint64_t bytes)
{
    __atomic_fetch_add(&s->counters.queue_done, bytes, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->counters.queue_waits, __ATOMIC_SEQ_CST)) {
        g_mutex_lock(&s->core.lock);
        g_cond_broadcast(&s->core.changed);
        g_mutex_unlock(&s->core.lock);
    }
}

static bool submit_fills(VmfSession *s, GError **error)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        if (!session_submit_fill(s, &s->channels[i], error)) {
            return false;
        }
    }
    return true;
}

/*
 * Waits until `bytes' more may be queued. Gathered RAM is handed out first. So a channel has all
 * that is waited for, and wakes this thread after a payload.
 */
static bool await_room(VmfSession *s, uint64_t bytes, GError **error)
{
    while (queued(s) && queued(s) + bytes > s->ram.queue_max) {
        uint64_t before;

        if (!submit_fills(s, error)) {
            return false;
        }
        before = queued(s);
        if (!before) {
            break;
        }
        g_mutex_lock(&s->core.lock);
        __atomic_store_n(&s->counters.queue_waits, true, __ATOMIC_SEQ_CST);
        while (!s->core.error && queued(s) == before) {
            g_cond_wait(&s->core.changed, &s->core.lock);
        }
        __atomic_store_n(&s->counters.queue_waits, false, __ATOMIC_SEQ_CST);
        g_mutex_unlock(&s->core.lock);
        if (session_failed(s)) {
            return session_report(s, error);
        }
    }
    s->ram.queue_limit = s->ram.queue_taken - queued(s) + s->ram.queue_max;
    return true;
}

/* --- saving --- */

/* How much of [offset, offset + length) goes into one range. */
static uint64_t cut(const VmfSession *s, uint64_t offset, uint64_t length)
{
    const uint64_t stripe = s->conn->stripe;
    const uint64_t part = MIN(length, stripe - (offset & (stripe - 1)));

    return part <= s->ram.range_bytes ? part
                                      : ((offset + s->ram.range_bytes) & ~(RAM_CUT - 1)) - offset;
}

/* Whether the session knows the block: its number means nothing in another set. */
static bool is_known(const VmfSession *s, const VmfRamBlock *block)
{
    return block->index < s->conn->block_count && s->conn->blocks[block->index] == block;
}

bool session_may_save(VmfSession *s, const VmfRamBlock *block, GError **error)
{
    if (G_UNLIKELY(session_failed(s))) {
        return session_report(s, error);
    }
    if (G_UNLIKELY(session_ram_is_unused(s)) && !session_await_ram(s, error)) {
        return false;
    }
    if (G_UNLIKELY(!is_known(s, block))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" is none of those that the session was made with: it is of "
                    "another set, or was added too late",
                    block->name);
        return false;
    }
    return true;
}

/*
 * Zero pages cost next to nothing, but the channels find them later. So all pages are accounted in
 * full, and zero pages are set against pages saved after them.
 */
static uint64_t account(VmfSession *s, uint64_t length)
{
    const uint64_t zero = __atomic_load_n(&s->counters.zero_bytes, __ATOMIC_RELAXED);
    const uint64_t refund = MIN(length, zero - s->ram.zero_refunded);

    s->ram.zero_refunded += refund;
    s->ram.accounted += length - refund;
    return length - refund;
}

/* Takes off the zero pages that are left, after the channels have looked at everything. */
static void refund(VmfSession *s)
{
    const uint64_t zero = __atomic_load_n(&s->counters.zero_bytes, __ATOMIC_RELAXED);
    /* A gap that was sent with its neighbours was never accounted. */
    const uint64_t bytes = MIN(zero - s->ram.zero_refunded, s->ram.accounted);

    s->ram.zero_refunded = zero;
    s->ram.accounted -= bytes;
    file_take_back(s->file, bytes);
}

bool session_save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                      unsigned flags, uint64_t *accounted, GError **error)
{
    VmfSession *s = opaque;

    const bool zero = flags & VMF_SAVE_ZERO;

    if (!session_may_save(s, block, error)) {
        return false;
    }
    if (G_UNLIKELY(!block->host && !zero)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" is saved before anybody said where its memory is",
                    block->name);
        return false;
    }
    s->ram.since_sync = true;
    *accounted = account(s, length);
    add(&s->counters.ram_bytes, length);
    while (length) {
        const uint64_t part = cut(s, offset, length);

        /* A gap may be sent, too. */
        const uint64_t most = part + s->conn->merge_gap;

        if ((G_UNLIKELY(s->ram.queue_taken + most > s->ram.queue_limit) &&
             !await_room(s, most, error)) ||
            !add_range(s, block->index, offset, part, zero, error)) {
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
    uint64_t number = s->streams.sync_number + 1;

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
    g_mutex_lock(&s->core.lock);
    s->streams.sync_number = number;
    s->streams.out_sync = number;
    g_mutex_unlock(&s->core.lock);
    s->ram.since_sync = false;
    return true;
}

/* Waits until the latest sync went out on every channel, and all before it is written. */
static bool await_syncs(VmfSession *s, GError **error)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    for (unsigned i = 0; i < s->channel_count; i++) {
        while (!s->core.error && s->channels[i].sync_sent < s->streams.sync_number) {
            g_cond_wait(&s->core.changed, &s->core.lock);
        }
    }
    ok = !s->core.error;
    g_mutex_unlock(&s->core.lock);
    return ok || session_report(s, error);
}

bool session_sync(VmfSession *s, bool drain, GError **error)
{
    return submit_sync(s, drain, error) && (!drain || await_syncs(s, error));
}

bool session_fence(VmfSession *s, GError **error)
{
    return !s->ram.since_sync || session_sync(s, false, error);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Hands out ranges that wait for more ranges, unless their channel has enough to do. */
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

    g_mutex_lock(&s->core.lock);
    sending = s->device_ops->is_sending_locked(s->devices);
    g_mutex_unlock(&s->core.lock);
    g_atomic_int_set(&s->conn->channels_done, s->ram.flushed && !sending);
}

/* Late RAM that nobody has saved: its channels may have no threads yet. */
static bool flush_nothing(VmfSession *s, VmfFlush how)
{
    if (how == VMF_FLUSH_FINAL) {
        s->ram.flushed = true;
        session_update_channels_done(s);
    }
    return true;
}

bool session_flush_ram(void *opaque, VmfFlush how, unsigned flags, GError **error)
{
    VmfSession *s = opaque;
    uint64_t began;

    (void)flags;
    if (session_ram_is_unused(s) && how == VMF_FLUSH_FINAL &&
        !session_finish_unused_ram(s, error)) {
        return false;
    }
    if (session_ram_is_unused(s)) {
        return flush_nothing(s, how);
    }
    if (how == VMF_FLUSH_START) {
        return start_fills(s, error);
    }
    began = now_ns(); /* the other flushes wait: a round's end pays for its own RAM */
    if (!session_sync(s, true, error)) {
        return false;
    }
    refund(s);
    if (how == VMF_FLUSH_FINAL) {
        s->ram.flushed = true;
        session_update_channels_done(s);
    }
    __atomic_store_n(&s->counters.last_flush_ns, now_ns() - began, __ATOMIC_RELAXED);
    return true;
}
