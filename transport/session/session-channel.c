/* SPDX-License-Identifier: BSD-2-Clause */
/* session-channel.c -- the channel threads of both sides */

#include "session-channel.h"

#include <string.h>

#include "session-client.h"
#include "session-core.h"
#include "session-ram.h"

/* --- source --- */

static bool send_data(SessionChannel *channel, unsigned block, uint64_t offset, uint64_t end,
                      GError **error)
{
    VmfSession *s = channel->session;

    return offset == end ||
           s->ops->send_ram(s->conn, channel->number, block, offset, end - offset, error);
}

/*
 * The part of a zero run that is told as zero: whole pages. A peer that notes which pages it was
 * told of would count a part as the whole page. The rest is sent as data.
 */
static bool trim_to_pages(const VmfRamBlock *block, const RamRun *run, uint64_t *from, uint64_t *to)
{
    const uint64_t mask = MIN(block->page_size, RAM_CUT) - 1;
    const uint64_t end = run->offset + run->length;

    *from = (run->offset + mask) & ~mask;
    *to = end == block->length ? end : end & ~mask;
    return *from < *to;
}

/*
 * A range that the caller found zero. A range that is no whole pages, or of a transport that does
 * not send zeros, is sent as data if its memory is known.
 */
static bool send_said_zero(SessionChannel *channel, const PayloadRange *range, GError **error)
{
    VmfSession *s = channel->session;
    const VmfRamBlock *block = s->conn->blocks[range->block];
    const RamRun run = {.offset = range->offset, .length = range->length, .zero = true};
    uint64_t from, to;

    if (block->host && s->conn->zero_min > range->length) {
        return s->ops->send_ram(s->conn, channel->number, range->block, range->offset,
                                range->length, error);
    }
    if (!trim_to_pages(block, &run, &from, &to) || to - from != range->length) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "0x%" G_GINT64_MODIFIER "x+0x%x of RAM block \"%s\" was saved as zero, but is "
                    "no whole pages",
                    range->offset, range->length, block->name);
        return false;
    }
    __atomic_fetch_add(&s->counters.zero_bytes, range->length, __ATOMIC_RELAXED);
    return s->ops->send_zero(s->conn, channel->number, range->block, from, to - from, error);
}

static bool send_range(SessionChannel *channel, const PayloadRange *range, GError **error)
{
    VmfSession *s = channel->session;
    VmfConn *conn = s->conn;
    const VmfRamBlock *block = conn->blocks[range->block];
    uint64_t offset = range->offset, end = offset + range->length, data;
    uint64_t from, to;
    RamRun run;

    if (range->zero) {
        return send_said_zero(channel, range, error);
    }
    if (!s->options.zero_detect || conn->zero_min == UINT64_MAX) {
        return s->ops->send_ram(conn, channel->number, range->block, offset, range->length, error);
    }
    data = offset;
    while (ram_scan_next(s->blocks.scan, block, &offset, end, &run)) {
        if (!run.zero || !trim_to_pages(block, &run, &from, &to) || to - from < conn->zero_min) {
            continue; /* it is sent with its neighbours */
        }
        if (!send_data(channel, range->block, data, from, error) ||
            !s->ops->send_zero(conn, channel->number, range->block, from, to - from, error)) {
            return false;
        }
        __atomic_fetch_add(&s->counters.zero_bytes, to - from, __ATOMIC_RELAXED);
        data = to;
    }
    return send_data(channel, range->block, data, end, error);
}

static bool send_ranges(SessionChannel *channel, const Payload *payload, GError **error)
{
    for (unsigned i = 0; i < payload->ram.count; i++) {
        if (!send_range(channel, &payload->ram.ranges[i], error)) {
            return false;
        }
    }
    if (!channel->session->ops->kick(channel->session->conn, channel->number, error)) {
        return false;
    }
    session_ram_done(channel->session, payload->ram.bytes);
    return true;
}

static bool send_sync(SessionChannel *channel, const Payload *payload, GError **error)
{
    VmfSession *s = channel->session;

    if (!s->ops->send_sync(s->conn, channel->number, payload->sync.number, payload->sync.drain,
                           error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    channel->sync_sent = payload->sync.number;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return true;
}

static bool send_device(SessionChannel *channel, const Payload *payload, GError **error)
{
    VmfSession *s = channel->session;
    VmfDeviceHeader header = *payload->device.header;

    header.offset = payload->device.offset;
    header.size = payload->device.size;
    return s->ops->send_device(s->conn, channel->number, &header,
                               payload->device.data + header.offset, payload->device.done, error) &&
           s->ops->kick(s->conn, channel->number, error);
}

static bool send_raw(SessionChannel *channel, const Payload *payload, GError **error)
{
    VmfSession *s = channel->session;

    if (!s->ops->raw_write(s->conn, channel->number, payload->raw.message_size, payload->raw.bytes,
                           &payload->raw.done->seconds, error)) {
        return false;
    }
    session_done(s, payload->raw.done);
    return true;
}

static bool send_stream(SessionChannel *channel, Payload *payload, GError **error)
{
    VmfSession *s = channel->session;
    g_autofree uint8_t *data = g_steal_pointer(&payload->stream.data);

    return s->ops->send_stream(s->conn, channel->number, data, payload->stream.size,
                               payload->stream.hook, error);
}

static bool send_payload(SessionChannel *channel, Payload *payload, GError **error)
{
    switch (payload->kind) {
    case PAYLOAD_RAM:
        return send_ranges(channel, payload, error);
    case PAYLOAD_SYNC:
        return send_sync(channel, payload, error);
    case PAYLOAD_DEVICE:
        return send_device(channel, payload, error);
    case PAYLOAD_RAW:
        return send_raw(channel, payload, error);
    case PAYLOAD_STREAM:
        return send_stream(channel, payload, error);
    case PAYLOAD_EMPTY:
        break;
    }
    return true;
}

static bool feed(SessionChannel *channel, GError **error)
{
    VmfSession *s = channel->session;

    while (!g_cancellable_is_cancelled(s->core.cancel)) {
        if (mailbox_take(&channel->mailbox, &channel->own)) {
            session_tell_room(s);
            if (!send_payload(channel, channel->own, error)) {
                return false;
            }
            continue;
        }
        if (!s->ops->wait(s->conn, channel->number, channel->mailbox.wake_fd, error)) {
            return false;
        }
        mailbox_awake(&channel->mailbox);
    }
    return true;
}

/* --- both --- */

static void *channel_main(void *opaque)
{
    SessionChannel *channel = opaque;
    VmfSession *s = channel->session;
    GError *error = NULL;
    bool ok =
        channel->feeds ? feed(channel, &error) : s->ops->serve(s->conn, channel->number, &error);

    if (!ok) {
        session_need_error(&error, "a channel");
        session_fail(s, error, false);
    }
    g_mutex_lock(&s->core.lock);
    channel->over = true;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return NULL;
}

void session_channel_init(SessionChannel *channel, VmfSession *s, unsigned number, bool feeds)
{
    channel->session = s;
    channel->number = number;
    channel->feeds = feeds;
    channel->own = g_new0(Payload, 1);
    channel->fill = g_new0(Payload, 1);
}

void session_channel_clear(SessionChannel *channel)
{
    mailbox_clear(&channel->mailbox);
    payload_free(channel->own);
    payload_free(channel->fill);
}

static void allocate_channels(VmfSession *s)
{
    s->channels = g_new0(SessionChannel, s->conn->channels);
    for (unsigned i = 0; i < s->conn->channels; i++) {
        session_channel_init(&s->channels[i], s, i, s->role == VMF_ROLE_SOURCE);
    }
}

bool session_prepare_channels(VmfSession *s, GError **error)
{
    allocate_channels(s);
    if (s->role == VMF_ROLE_SOURCE) { /* a destination has no queue, and may have no stripe yet */
        session_bound_queue(s);
    }
    for (unsigned i = 0; i < s->conn->channels; i++) {
        if (!mailbox_init(&s->channels[i].mailbox, error)) {
            mailbox_clear(&s->channels[i].mailbox);
            return false;
        }
        /* session_fail() may run in another thread, and sees only channels with a mailbox. */
        g_mutex_lock(&s->core.lock);
        s->channel_count = i + 1;
        g_mutex_unlock(&s->core.lock);
    }
    return true;
}

bool session_start_channel(SessionChannel *channel, GError **error)
{
    g_autofree char *name = g_strdup_printf("vmf-channel-%u", channel->number);
    g_autoptr(GError) failure = NULL;

    channel->thread = g_thread_try_new(name, channel_main, channel, &failure);
    if (!channel->thread) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "cannot start channel thread %u: %s",
                    channel->number, failure->message);
        return false;
    }
    return true;
}

bool session_start_channels(VmfSession *s, GError **error)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        if (!session_start_channel(&s->channels[i], error)) {
            return false;
        }
    }
    return vmf_session_check(s, error);
}

void session_join_channels(VmfSession *s)
{
    for (unsigned i = 0; i < s->channel_count; i++) {
        if (s->role == VMF_ROLE_SOURCE) {
            mailbox_close(&s->channels[i].mailbox);
        }
        if (s->channels[i].thread) {
            g_thread_join(g_steal_pointer(&s->channels[i].thread));
        }
    }
}
