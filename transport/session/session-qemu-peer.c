/* SPDX-License-Identifier: BSD-2-Clause */
/* session-qemu-peer.c -- a session with stock QEMU: set-up, stream, return path and end */

#include "session-qemu-peer.h"

#include <string.h>

#include "session-blocks.h"
#include "session-channel.h"
#include "session-core.h"
#include "session-late-ram.h"
#include "session-outcome.h"
#include "session-peer.h"
#include "session-ram.h"
#include "session-revoke.h"
#include "session-stream-file.h"
#include "session-waking.h"

static bool fits(const VmfRamBlock *own, const VmfQemuBlock *listed)
{
    return listed->length == own->length || (own->resizable && listed->length <= own->length);
}

/* --- source --- */

/* RAM blocks have no names on the wire: their places in the stream's list are their numbers. */
static bool check_blocks(VmfSession *s, GError **error)
{
    const unsigned count = vmf_qemu_stream_block_count(s->qemu.stream);

    if (s->qemu.blocks_checked || !vmf_qemu_stream_blocks_complete(s->qemu.stream)) {
        return true;
    }
    s->qemu.blocks_checked = true;
    for (unsigned i = 0; i < MAX(count, s->conn->block_count); i++) {
        const VmfQemuBlock *block = vmf_qemu_stream_block(s->qemu.stream, i);
        const VmfRamBlock *own = i < s->conn->block_count ? s->conn->blocks[i] : NULL;

        if (!block || !own || strcmp(block->name, own->name) != 0 || !fits(own, block)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                        "RAM block number %u is \"%s\" with %" G_GUINT64_FORMAT
                        " bytes in the stream and \"%s\" with %" G_GUINT64_FORMAT
                        " bytes in the session",
                        i, block ? block->name : "none", block ? block->length : 0,
                        own ? own->name : "none", own ? own->length : 0);
            return false;
        }
        s->qemu.lengths[i] = block->length;
    }
    return true;
}

/* Sends the bytes, and empties the array. */
static bool submit_stream(SessionChannel *channel, GByteArray *bytes, bool hook, GError **error)
{
    VmfSession *s = channel->session;

    if (!bytes->len) {
        return true;
    }
    if (!session_submit_fill(s, channel, error)) {
        return false;
    }
    channel->fill->kind = PAYLOAD_STREAM;
    channel->fill->stream.data = g_byte_array_steal(bytes, &channel->fill->stream.size);
    channel->fill->stream.hook = hook;
    return session_submit_fill(s, channel, error);
}

static bool source_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    VmfSession *s = opaque;

    (void)error;
    qemu_hooks_item(&s->qemu.hooks, item);
    return true;
}

static bool begin_ram(VmfSession *s, GError **error)
{
    if (!check_blocks(s, error)) {
        return false;
    }
    if (!qemu_hooks_ram(&s->qemu.hooks)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "stock QEMU takes RAM only after a hook in the stream's section of RAM");
        return false;
    }
    return submit_stream(&s->channels[0], s->qemu.hooks.out, true, error);
}

static bool put_forth(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error)
{
    for (unsigned i = 0; i < iovcnt; i++) {
        if (vmf_qemu_stream_scan(s->qemu.stream, iov[i].iov_base, iov[i].iov_len, false, error) <
            0) {
            return false;
        }
    }
    /* RAM that is late: the bytes wait for the channel, which begins with RAM. */
    return session_ram_is_unused(s) ||
           (check_blocks(s, error) &&
            submit_stream(&s->channels[0], s->qemu.hooks.out, false, error));
}

static bool put_back(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    for (unsigned i = 0; i < iovcnt; i++) {
        g_byte_array_append(bytes, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    return submit_stream(s->qemu.back, bytes, false, error);
}

static bool save_ram(void *opaque, const VmfRamBlock *block, uint64_t offset, uint64_t length,
                     unsigned flags, uint64_t *accounted, GError **error)
{
    VmfSession *s = opaque;

    /* The block is checked before a hook goes, because the destination may pin memory at a hook. */
    return (s->qemu.hooks.state == QEMU_HOOKS_OPEN ||
            (session_may_save(s, block, error) && begin_ram(s, error))) &&
           session_save_ram(s, block, offset, length, flags, accounted, error);
}

static bool put_stream(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                       unsigned flags, GError **error)
{
    VmfSession *s = opaque;

    (void)position;
    (void)flags;
    if (session_failed(s)) {
        return session_report(s, error);
    }
    g_mutex_lock(&s->core.lock);
    for (unsigned i = 0; i < iovcnt; i++) {
        s->streams.bytes += iov[i].iov_len;
    }
    g_mutex_unlock(&s->core.lock);
    return s->role == VMF_ROLE_SOURCE ? put_forth(s, iov, iovcnt, error)
                                      : put_back(s, iov, iovcnt, error);
}

static bool settle(VmfSession *s, GError **error)
{
    qemu_hooks_release(&s->qemu.hooks);
    return session_await_ram(s, error) && check_blocks(s, error) &&
           submit_stream(&s->channels[0], s->qemu.hooks.out, false, error) &&
           session_sync(s, true, error);
}

/* --- the return path --- */

static bool open_back(VmfSession *s, GError **error)
{
    SessionChannel *back;

    if (s->qemu.back) {
        return true;
    }
    if (!s->ops->open_back(s->conn, error)) {
        return false;
    }
    back = g_new0(SessionChannel, 1);
    session_channel_init(back, s, VMF_CHANNEL_BACK, s->role == VMF_ROLE_DESTINATION);
    if (!mailbox_init(&back->mailbox, error)) {
        session_channel_clear(back);
        g_free(back);
        return false;
    }
    g_mutex_lock(&s->core.lock);
    s->qemu.back = back;
    g_mutex_unlock(&s->core.lock);
    return session_start_channel(back, error);
}

static void close_back(VmfSession *s)
{
    SessionChannel *back = s->qemu.back;

    if (!back) {
        return;
    }
    mailbox_close(&back->mailbox);
    if (back->thread) {
        g_thread_join(back->thread);
    }
    g_mutex_lock(&s->core.lock);
    s->qemu.back = NULL;
    g_mutex_unlock(&s->core.lock);
    session_channel_clear(back);
    g_free(back);
}

/* --- what arrives --- */

/* Follows the stream, to find its hooks and RAM blocks. */
static bool follow(VmfSession *s, const uint8_t *data, size_t size, bool *hook, GError **error)
{
    ssize_t scanned = vmf_qemu_stream_scan(s->qemu.stream, data, size, true, error);

    if (scanned < 0) {
        return false;
    }
    *hook = vmf_qemu_stream_at_hook(s->qemu.stream);
    if ((size_t)scanned < size) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "QEMU_FILE: %zu bytes of the stream after a hook in the same message",
                    size - (size_t)scanned);
        return false;
    }
    return true;
}

bool qemu_peer_stream_arrived(VmfConn *conn, const uint8_t *data, size_t size, bool *hook,
                              GError **error)
{
    VmfSession *s = conn_session(conn);

    *hook = false;
    if (s->role == VMF_ROLE_DESTINATION && !follow(s, data, size, hook, error)) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    while (size && !s->core.error) {
        size_t part = MIN(size, stream_room(&s->streams.in_ring));

        if (!part) {
            g_cond_wait(&s->core.changed, &s->core.lock);
            continue;
        }
        stream_put(&s->streams.in_ring, data, part, 0);
        data += part;
        size -= part;
        session_update_readable_locked(s);
        g_cond_broadcast(&s->core.changed);
    }
    g_mutex_unlock(&s->core.lock);
    return vmf_session_check(s, error);
}

void qemu_peer_stream_ended(VmfConn *conn)
{
    VmfSession *s = conn_session(conn);

    /* When a source is killed, the kernel closes the connection as if the source were done. */
    if (s->role == VMF_ROLE_DESTINATION && !vmf_qemu_stream_ram_ended(s->qemu.stream)) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_PROTOCOL,
                                 "%s hung up at offset %" G_GUINT64_FORMAT
                                 " of QEMU's stream, where %s should come: its migration was "
                                 "cancelled or failed, or its process has ended",
                                 conn->peer, vmf_qemu_stream_position(s->qemu.stream),
                                 vmf_qemu_stream_awaits(s->qemu.stream)),
                     false);
        return;
    }
    g_mutex_lock(&s->core.lock);
    s->streams.in_ended = true;
    session_update_readable_locked(s);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
}

bool qemu_peer_stream_blocks(VmfConn *conn, GError **error)
{
    VmfSession *s = conn_session(conn);
    RamScan *scan;
    const unsigned count = vmf_qemu_stream_block_count(s->qemu.stream);

    if (!vmf_qemu_stream_blocks_complete(s->qemu.stream)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "RAM_BLOCKS_REQUEST before the stream has listed the RAM blocks");
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        const VmfQemuBlock *block = vmf_qemu_stream_block(s->qemu.stream, i);
        MessageBlock entry = {.length = block->length};

        g_strlcpy(entry.name, block->name, sizeof(entry.name));
        g_array_append_val(s->peer.blocks, entry);
        if (s->peer.blocks->len > session_blocks_max(s)) {
            break; /* enough to name the block that is too many */
        }
    }
    if (!session_await_named(s, error) || !session_match_blocks(s, error)) {
        return false;
    }
    scan = ram_scan_new(s->blocks.set, PRESENCE_WRITE, error);
    if (!scan) {
        return false;
    }
    g_mutex_lock(&s->core.lock);
    s->blocks.scan = scan;
    g_mutex_unlock(&s->core.lock);
    conn->blocks = s->blocks.wire;
    conn->block_count = count;
    return true;
}

/* --- set-up --- */

static bool no_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    (void)opaque;
    (void)item;
    (void)error;
    return true;
}

/* A source takes the order of its set, which is that of the stream. */
static bool use_own_blocks(VmfSession *s, GError **error)
{
    session_use_own_order(s);
    s->conn->blocks = s->blocks.wire;
    s->conn->block_count = vmf_ram_blocks_count(s->blocks.set);
    s->qemu.lengths = g_new0(uint64_t, MAX(s->conn->block_count, 1));
    s->conn->block_lengths = s->qemu.lengths;
    s->blocks.scan = ram_scan_new(s->blocks.set, PRESENCE_READ, error);
    return s->blocks.scan != NULL;
}

/* A destination learns its blocks from the stream. */
static bool set_up_ram(VmfSession *s, GError **error)
{
    return (s->role == VMF_ROLE_DESTINATION || use_own_blocks(s, error)) &&
           s->ops->ram_setup(s->conn, error) && session_prepare_channels(s, error) &&
           session_start_channels(s, error);
}

static bool set_up(VmfSession *s, const VmfUri *uri, GError **error)
{
    const bool source = s->role == VMF_ROLE_SOURCE;

    (void)uri;
    s->late_ram.on = session_set_is_late(s);
    s->qemu.stream = vmf_qemu_stream_new(source ? source_item : no_item, s);
    if (source) {
        qemu_hooks_init(&s->qemu.hooks);
    }
    s->conn->channels = 1;
    if (!s->ops->open_channels(s->conn, error)) {
        s->conn->channels = 0; /* it has not begun to migrate, so it is a stranger */
        return false;
    }
    return session_open_file(s, error) &&
           (source && session_ram_is_late(s) ? session_begin_late(s, error) : set_up_ram(s, error));
}

/* --- the end --- */

static bool complete_source(VmfSession *s, GError **error)
{
    GError *failure = NULL;

    /* A destination that has everything may run the VM, whether this side hears of that or not. */
    session_event(s, HANDOVER_SUBMITS);
    if (!session_flush_last(s, error)) {
        return false;
    }
    /*
     * QEMU's destination has no message that says that it is ready. That it has everything must do.
     */
    if (!settle(s, &failure)) {
        session_fail(s, failure, false);
        return session_outcome(s, error);
    }
    session_event(s, HANDOVER_FOREIGN);
    return session_outcome(s, error);
}

/* The source has closed the connection, and had not failed. */
static bool complete_destination(VmfSession *s, GError **error)
{
    if (!session_end_reading(s, error)) {
        return false;
    }
    session_event(s, HANDOVER_FOREIGN);
    return session_outcome(s, error);
}

/* The thread of channel 0 may wait for room in the ring. */
static void took(VmfSession *s)
{
    g_mutex_lock(&s->core.lock);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
}

static void close_peer(VmfSession *s)
{
    close_back(s);
}

const SessionPeerOps session_qemu_peer = {
    .is_qemu = true,
    .source_is_unsure =
        "the destination, which is stock QEMU, may have had everything, and runs the VM then; it "
        "cannot "
        "be asked: outcome unknown. This side must not run the VM. Look whether the destination "
        "runs "
        "it; only if it does not and never will, run it here",
    .set_up = set_up,
    .set_up_ram = set_up_ram,
    .put_stream = put_stream,
    .save_ram = save_ram,
    .took = took,
    .settle = settle,
    .complete_source = complete_source,
    .complete_destination = complete_destination,
    .open_back = open_back,
    .close = close_peer,
};
