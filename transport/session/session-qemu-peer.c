/* SPDX-License-Identifier: BSD-2-Clause */
/* session-qemu-peer.c -- the stream of a session with stock QEMU, which marks in it when RAM comes
 */

#include <string.h>

#include "session-state.h"

static bool fits(const VmfRamBlock *own, const VmfQemuBlock *listed)
{
    return listed->length == own->length || (own->resizable && listed->length <= own->length);
}

/* --- source --- */

/* RAM blocks have no names on the wire, but the places that the stream gives them. */
static bool check_blocks(VmfSession *s, GError **error)
{
    const unsigned count = vmf_qemu_stream_block_count(s->qemu);

    if (s->blocks_checked || !vmf_qemu_stream_blocks_complete(s->qemu)) {
        return true;
    }
    s->blocks_checked = true;
    for (unsigned i = 0; i < MAX(count, s->conn->block_count); i++) {
        const VmfQemuBlock *block = vmf_qemu_stream_block(s->qemu, i);
        const VmfRamBlock *own = i < s->conn->block_count ? s->conn->blocks[i] : NULL;

        if (!block || !own || strcmp(block->name, own->name) || !fits(own, block)) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_MISMATCH,
                        "RAM block number %u is \"%s\" with %" G_GUINT64_FORMAT
                        " bytes in the stream and \"%s\" with %" G_GUINT64_FORMAT
                        " bytes in the session",
                        i, block ? block->name : "none", block ? block->length : 0,
                        own ? own->name : "none", own ? own->length : 0);
            return false;
        }
        s->lengths[i] = block->length;
    }
    return true;
}

/* Sends the bytes, and leaves none there. */
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

bool qemu_peer_source_item(void *opaque, const VmfQemuItem *item, GError **error)
{
    VmfSession *s = opaque;

    (void)error;
    qemu_hooks_item(&s->hooks, item);
    return true;
}

bool qemu_peer_begin_ram(VmfSession *s, GError **error)
{
    if (!qemu_hooks_ram(&s->hooks)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "stock QEMU takes RAM only behind a hook in the stream's section of RAM");
        return false;
    }
    return submit_stream(&s->channels[0], s->hooks.out, true, error);
}

static bool put_forth(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error)
{
    for (unsigned i = 0; i < iovcnt; i++) {
        if (vmf_qemu_stream_scan(s->qemu, iov[i].iov_base, iov[i].iov_len, false, error) < 0) {
            return false;
        }
    }
    return check_blocks(s, error) && submit_stream(&s->channels[0], s->hooks.out, false, error);
}

static bool put_back(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    for (unsigned i = 0; i < iovcnt; i++) {
        g_byte_array_append(bytes, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    return submit_stream(s->back, bytes, false, error);
}

bool qemu_peer_put_stream(VmfSession *s, const struct iovec *iov, unsigned iovcnt, GError **error)
{
    if (session_failed(s)) {
        return session_report(s, error);
    }
    g_mutex_lock(&s->lock);
    for (unsigned i = 0; i < iovcnt; i++) {
        s->stream_bytes += iov[i].iov_len;
    }
    g_mutex_unlock(&s->lock);
    return s->role == VMF_ROLE_SOURCE ? put_forth(s, iov, iovcnt, error)
                                      : put_back(s, iov, iovcnt, error);
}

bool qemu_peer_settle(VmfSession *s, GError **error)
{
    qemu_hooks_release(&s->hooks);
    return submit_stream(&s->channels[0], s->hooks.out, false, error) &&
           session_sync(s, true, error);
}

/* --- the return path --- */

bool qemu_peer_open_back(VmfSession *s, GError **error)
{
    SessionChannel *back;

    if (s->back) {
        return true;
    }
    if (!s->ops->open_back(s->conn, error)) {
        return false;
    }
    back = g_new0(SessionChannel, 1);
    session_channel_init(back, s, VMF_CHANNEL_BACK);
    if (!mailbox_init(&back->mailbox, error)) {
        session_channel_clear(back);
        g_free(back);
        return false;
    }
    g_mutex_lock(&s->lock);
    s->back = back;
    g_mutex_unlock(&s->lock);
    return session_start_channel(back, error);
}

void qemu_peer_close_back(VmfSession *s)
{
    SessionChannel *back = s->back;

    if (!back) {
        return;
    }
    mailbox_close(&back->mailbox);
    if (back->thread) {
        g_thread_join(back->thread);
    }
    g_mutex_lock(&s->lock);
    s->back = NULL;
    g_mutex_unlock(&s->lock);
    session_channel_clear(back);
    g_free(back);
}

/* --- what arrives --- */

/* Follows the stream, for its hooks and RAM blocks. */
static bool follow(VmfSession *s, const uint8_t *data, size_t size, bool *hook, GError **error)
{
    ssize_t scanned = vmf_qemu_stream_scan(s->qemu, data, size, true, error);

    if (scanned < 0) {
        return false;
    }
    *hook = vmf_qemu_stream_at_hook(s->qemu);
    if ((size_t)scanned < size) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "QEMU_FILE: %zu bytes of the stream behind a hook in the same message",
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
    g_mutex_lock(&s->lock);
    while (size && !s->error) {
        size_t part = MIN(size, stream_room(&s->in_ring));

        if (!part) {
            g_cond_wait(&s->changed, &s->lock);
            continue;
        }
        stream_put(&s->in_ring, data, part, 0);
        data += part;
        size -= part;
        session_update_readable_locked(s);
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    return vmf_session_check(s, error);
}

void qemu_peer_stream_ended(VmfConn *conn)
{
    VmfSession *s = conn_session(conn);

    /* A source that is killed hangs up like one that is through: the kernel does it in its name. */
    if (s->role == VMF_ROLE_DESTINATION && !vmf_qemu_stream_ram_ended(s->qemu)) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_PROTOCOL,
                                 "%s hung up at offset %" G_GUINT64_FORMAT
                                 " of QEMU's stream, where %s should come: its migration was "
                                 "cancelled or failed, or its process has ended",
                                 conn->peer, vmf_qemu_stream_position(s->qemu),
                                 vmf_qemu_stream_awaits(s->qemu)),
                     false);
        return;
    }
    g_mutex_lock(&s->lock);
    s->in_ended = true;
    session_update_readable_locked(s);
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

bool qemu_peer_stream_blocks(VmfConn *conn, GError **error)
{
    VmfSession *s = conn_session(conn);
    const unsigned count = vmf_qemu_stream_block_count(s->qemu);

    if (!vmf_qemu_stream_blocks_complete(s->qemu)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "RAM_BLOCKS_REQUEST before the stream has listed the RAM blocks");
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        const VmfQemuBlock *block = vmf_qemu_stream_block(s->qemu, i);
        MessageBlock entry = {.length = block->length};

        g_strlcpy(entry.name, block->name, sizeof(entry.name));
        g_array_append_val(s->peer_blocks, entry);
        if (s->peer_blocks->len > session_blocks_max(s)) {
            break; /* enough to name the one that is too many */
        }
    }
    if (!session_match_blocks(s, error)) {
        return false;
    }
    /* Nobody else looks at these before RAM comes. */
    s->scan = ram_scan_new(s->blocks, PRESENCE_WRITE, error);
    if (!s->scan) {
        return false;
    }
    conn->blocks = s->wire_blocks;
    conn->block_count = count;
    return true;
}
