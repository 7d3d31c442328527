/* SPDX-License-Identifier: BSD-2-Clause */
/* session-host.c -- what transports call of the engine */

#include "session-host.h"

#include "session-client.h"
#include "session-post.h"
#include "session-qemu-peer.h"
#include "session-settle.h"
#include "session-waking.h"
#include "session-device.h"

static bool sync_seen(VmfConn *conn, unsigned number, uint64_t sync, GError **error)
{
    VmfSession *s = conn_session(conn);
    SessionChannel *channel = &s->channels[number];
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = sync == channel->sync_seen + 1;
    if (ok) {
        channel->sync_seen = sync;
        session_update_readable_locked(s);
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
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
    return s->blocks.populated && !s->blocks.keeps && populated_has(s->blocks.populated, block);
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
        ram_scan_release(s->blocks.scan, block, offset, length);
    } else {
        ram_scan_zero(s->blocks.scan, block, offset, length);
    }
    __atomic_fetch_add(&s->counters.zero_bytes, length, __ATOMIC_RELAXED);
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
    return !ram_scan_touched(conn_session(conn)->blocks.scan, conn->blocks[block], offset, end,
                             until);
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

static void *begin_device(VmfConn *conn, unsigned number, const VmfDeviceHeader *header,
                          GError **error)
{
    return conn_session(conn)->device_ops->begin(conn, number, header, error);
}

static bool end_device(VmfConn *conn, unsigned number, GError **error)
{
    return conn_session(conn)->device_ops->done(conn, number, error);
}

const VmfConnHost session_host = {
    .size = sizeof(VmfConnHost),
    .sync_seen = sync_seen,
    .device_begin = begin_device,
    .device_done = end_device,
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
