/* SPDX-License-Identifier: BSD-2-Clause */
/* session-channel.c -- the channel threads of both sides, and what transports ask of the engine */

#include <string.h>

#include "device/device-set.h"
#include "session-state.h"

/* --- source --- */

static bool send_data(SessionChannel *channel, unsigned block, uint64_t offset, uint64_t end,
                      GError **error)
{
    VmfSession *s = channel->session;

    return offset == end ||
           s->ops->send_ram(s->conn, channel->number, block, offset, end - offset, error);
}

/*
 * What of a zero run is told as zero: whole pages, for whoever keeps account of pages that
 * were told would take the rest of the page for told, too. The rest goes as data.
 */
static bool trim_to_pages(const VmfRamBlock *block, const RamRun *run, uint64_t *from, uint64_t *to)
{
    const uint64_t mask = MIN(block->page_size, RAM_CUT) - 1;
    const uint64_t end = run->offset + run->length;

    *from = (run->offset + mask) & ~mask;
    *to = end == block->length ? end : end & ~mask;
    return *from < *to;
}

static bool send_range(SessionChannel *channel, const PayloadRange *range, GError **error)
{
    VmfSession *s = channel->session;
    VmfConn *conn = s->conn;
    const VmfRamBlock *block = conn->blocks[range->block];
    uint64_t offset = range->offset, end = offset + range->length, data;
    uint64_t from, to;
    RamRun run;

    if (!s->zero_detect || conn->zero_min == UINT64_MAX) {
        return s->ops->send_ram(conn, channel->number, range->block, offset, range->length, error);
    }
    data = offset;
    while (ram_scan_next(s->scan, block, &offset, end, &run)) {
        if (!run.zero || !trim_to_pages(block, &run, &from, &to) || to - from < conn->zero_min) {
            continue; /* it goes with what is next to it */
        }
        if (!send_data(channel, range->block, data, from, error) ||
            !s->ops->send_zero(conn, channel->number, range->block, from, to - from, error)) {
            return false;
        }
        __atomic_fetch_add(&s->zero_bytes, to - from, __ATOMIC_RELAXED);
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
    g_mutex_lock(&s->lock);
    channel->sync_sent = payload->sync.number;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
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

    while (!g_cancellable_is_cancelled(s->cancel)) {
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
    const bool back = s->conn->foreign && channel->number == VMF_CHANNEL_BACK;
    const bool feeds = (s->role == VMF_ROLE_SOURCE) != back;
    bool ok = feeds ? feed(channel, &error) : s->ops->serve(s->conn, channel->number, &error);

    if (!ok) {
        session_need_error(&error, "a channel");
        session_fail(s, error, false);
    }
    g_mutex_lock(&s->lock);
    channel->over = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return NULL;
}

void session_channel_init(SessionChannel *channel, VmfSession *s, unsigned number)
{
    channel->session = s;
    channel->number = number;
    channel->own = g_new0(Payload, 1);
    channel->fill = g_new0(Payload, 1);
}

void session_channel_clear(SessionChannel *channel)
{
    mailbox_clear(&channel->mailbox);
    payload_free(channel->own);
    payload_free(channel->fill);
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

/* --- what transports call --- */

static bool sync_seen(VmfConn *conn, unsigned number, uint64_t sync, GError **error)
{
    VmfSession *s = conn_session(conn);
    SessionChannel *channel = &s->channels[number];
    bool ok;

    g_mutex_lock(&s->lock);
    ok = sync == channel->sync_seen + 1;
    if (ok) {
        channel->sync_seen = sync;
        session_update_readable_locked(s);
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    if (ok) {
        session_answer_settle(s);
    } else {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "channel %u: sync %" G_GUINT64_FORMAT " after %" G_GUINT64_FORMAT, number, sync,
                    channel->sync_seen);
    }
    return ok;
}

static void *ram_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    if (block >= conn->block_count) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "there is no RAM block number %u", block);
        return NULL;
    }
    if (offset > conn->blocks[block]->length || length > conn->blocks[block]->length - offset) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "range 0x%" G_GINT64_MODIFIER "x+0x%" G_GINT64_MODIFIER
                    "x lies outside RAM block \"%s\"",
                    offset, length, conn->blocks[block]->name);
        return NULL;
    }
    return conn->blocks[block]->host + offset;
}

static bool was_populated(const VmfSession *s, const VmfRamBlock *block)
{
    return block->index < s->populated_count && s->populated[block->index];
}

static bool make_zero(VmfConn *conn, unsigned number, uint64_t offset, uint64_t length,
                      bool unregistered, GError **error)
{
    VmfSession *s = conn_session(conn);
    const VmfRamBlock *block;

    if (!ram_range(conn, number, offset, length, error)) {
        return false;
    }
    block = conn->blocks[number];
    if (unregistered && was_populated(s, block)) {
        ram_scan_release(s->scan, block, offset, length);
    } else {
        ram_scan_zero(s->scan, block, offset, length);
    }
    __atomic_fetch_add(&s->zero_bytes, length, __ATOMIC_RELAXED);
    return true;
}

static bool zero_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                       GError **error)
{
    return make_zero(conn, block, offset, length, false, error);
}

static bool release_range(VmfConn *conn, unsigned block, uint64_t offset, uint64_t length,
                          GError **error)
{
    return make_zero(conn, block, offset, length, true, error);
}

static bool untouched(VmfConn *conn, unsigned block, uint64_t offset, uint64_t end, uint64_t *until)
{
    return !ram_scan_touched(conn_session(conn)->scan, conn->blocks[block], offset, end, until);
}

static void device_sent(VmfConn *conn, unsigned number, void *piece)
{
    (void)number;
    session_done(conn_session(conn), piece);
}

static void post_message(VmfConn *conn, unsigned type, const void *data, size_t size)
{
    g_assert(type >= VMF_MESSAGE_PRIVATE && size + MESSAGE_HEADER_BYTES <= conn->control_max);
    session_post(conn_session(conn), type, 0, 0, data, size);
}

const VmfConnHost session_host = {
    .size = sizeof(VmfConnHost),
    .sync_seen = sync_seen,
    .device_begin = device_begin,
    .device_done = device_done,
    .device_sent = device_sent,
    .zero_range = zero_range,
    .untouched = untouched,
    .ram_range = ram_range,
    .post_message = post_message,
    .stream_arrived = qemu_peer_stream_arrived,
    .stream_ended = qemu_peer_stream_ended,
    .stream_blocks = qemu_peer_stream_blocks,
    .release_range = release_range,
};
