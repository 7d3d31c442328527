/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stream-file.c -- the session's streams as migration files, both ways */

#include <unistd.h>

#include "session-state.h"

/* How much is read before the sender is told that it may send more. */
#define CREDIT_STEP (STREAM_RING / 4)

uint64_t session_seen_locked(const VmfSession *s)
{
    uint64_t seen = UINT64_MAX;

    if (s->role == VMF_ROLE_SOURCE) {
        return UINT64_MAX; /* nothing is fenced on the way back */
    }
    for (unsigned i = 0; i < s->channel_count; i++) {
        seen = MIN(seen, s->channels[i].sync_seen);
    }
    return seen;
}

static bool readable_locked(VmfSession *s)
{
    return s->error || stream_readable(&s->in_ring, session_seen_locked(s)) > 0 ||
           (s->in_ended && s->in_ring.head == s->in_ring.tail);
}

void session_update_readable_locked(VmfSession *s)
{
    bool readable = readable_locked(s);
    uint64_t count = 1;

    if (readable == s->readable_set || s->readable_fd < 0) {
        return;
    }
    s->readable_set = readable;
    (void)!(readable ? write(s->readable_fd, &count, sizeof(count))
                     : read(s->readable_fd, &count, sizeof(count)));
}

/* --- writing --- */

bool session_put_stream(void *opaque, const struct iovec *iov, unsigned iovcnt, uint64_t position,
                        unsigned flags, GError **error)
{
    VmfSession *s = opaque;

    (void)position;
    (void)flags;
    if (s->conn->foreign) {
        return qemu_peer_put_stream(s, iov, iovcnt, error);
    }
    if (s->role == VMF_ROLE_SOURCE && !session_fence(s, error)) {
        return false;
    }
    g_mutex_lock(&s->lock);
    for (unsigned i = 0; i < iovcnt; i++) {
        const uint8_t *at = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left && !s->error && !s->out_ended) {
            size_t part = MIN(left, stream_room(&s->out_ring));

            if (!part) {
                g_cond_wait(&s->changed, &s->lock);
                continue;
            }
            stream_put(&s->out_ring, at, part, s->out_sync);
            s->stream_bytes += part;
            at += part;
            left -= part;
            session_wake_control_locked(s);
        }
    }
    if (s->error || s->out_ended) {
        g_mutex_unlock(&s->lock);
        return session_report(s, error);
    }
    g_mutex_unlock(&s->lock);
    return true;
}

bool vmf_session_settle(VmfSession *s, GError **error)
{
    uint64_t all;

    if (s->role != VMF_ROLE_SOURCE) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "only the source settles its stream");
        return false;
    }
    if (!vmf_file_flush(s->file, error)) {
        return false;
    }
    if (s->conn->foreign) {
        return qemu_peer_settle(s, error);
    }
    g_mutex_lock(&s->lock);
    all = s->out_ring.head;
    while (!s->error && s->out_ring.tail < all) {
        g_cond_wait(&s->changed, &s->lock);
    }
    g_mutex_unlock(&s->lock);
    session_post(s, MESSAGE_SETTLE, 0, all, NULL, 0);
    g_mutex_lock(&s->lock);
    while (!s->error && s->settled < all) {
        g_cond_wait(&s->changed, &s->lock);
    }
    g_mutex_unlock(&s->lock);
    return !session_failed(s) || session_report(s, error);
}

void session_end_stream(VmfSession *s)
{
    g_mutex_lock(&s->lock);
    s->out_ended = true;
    session_wake_control_locked(s);
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

/* --- reading --- */

/* Bytes taken; says so to the sender when it is worth a message. */
static void took(VmfSession *s, size_t size)
{
    uint64_t consumed;
    bool tell;

    (void)size;
    g_mutex_lock(&s->lock);
    consumed = s->in_ring.tail;
    if (s->conn->foreign) {
        g_cond_broadcast(&s->changed); /* its channel may wait for room */
    }
    tell = !s->conn->foreign && consumed + STREAM_RING - s->in_credit_told >= CREDIT_STEP;
    if (tell) {
        s->in_credit_told = consumed + STREAM_RING;
    }
    g_mutex_unlock(&s->lock);
    if (tell) {
        session_post(s, MESSAGE_STREAM_CREDIT, 0, consumed, NULL, 0);
    }
}

/* What arrived before the peer was lost can still be read. */
static bool outlives_its_peer_locked(VmfSession *s)
{
    return (g_error_matches(s->error, VMF_ERROR, VMF_ERROR_PEER_LOST) ||
            g_error_matches(s->error, VMF_ERROR, VMF_ERROR_TIMEOUT)) &&
           stream_readable(&s->in_ring, session_seen_locked(s)) > 0;
}

static ssize_t get_stream(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                          GError **error)
{
    VmfSession *s = opaque;
    size_t part;

    (void)position;
    g_mutex_lock(&s->lock);
    while (blocking && !readable_locked(s)) {
        g_cond_wait(&s->changed, &s->lock);
    }
    if (s->error && !outlives_its_peer_locked(s)) {
        g_mutex_unlock(&s->lock);
        session_report(s, error);
        return VMF_IO_ERROR;
    }
    part = stream_readable(&s->in_ring, session_seen_locked(s));
    part = MIN(part, size);
    if (!part) {
        bool end = s->in_ended && s->in_ring.head == s->in_ring.tail;

        g_mutex_unlock(&s->lock);
        return end ? 0 : VMF_IO_WOULD_BLOCK;
    }
    stream_take(&s->in_ring, buffer, part);
    s->stream_bytes += s->role == VMF_ROLE_DESTINATION ? part : 0;
    session_update_readable_locked(s);
    g_mutex_unlock(&s->lock);
    took(s, part);
    return (ssize_t)part;
}

/* --- the files --- */

static void shut_down(void *opaque)
{
    session_fail_as(opaque, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the stream was shut down"),
                    HANDOVER_CANCEL);
}

static int get_fd(void *opaque)
{
    VmfSession *s = opaque;

    return s->readable_fd;
}

static bool close_writer(void *opaque, GError **error)
{
    (void)error;
    session_end_stream(opaque);
    return true;
}

static bool close_reader(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return true;
}

static VmfFile *return_path(void *opaque, GError **error);

static const VmfFileOps source_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = session_put_stream,
    .close = close_writer,
    .shut_down = shut_down,
    .get_return_path = return_path,
    .save_ram_page = session_save_ram,
    .flush_ram_pages = session_flush_ram,
};

static const VmfFileOps destination_ops = {
    .size = sizeof(VmfFileOps),
    .get_buffer = get_stream,
    .close = close_reader,
    .shut_down = shut_down,
    .get_fd = get_fd,
    .get_return_path = return_path,
};

static const VmfFileOps return_reader_ops = {
    .size = sizeof(VmfFileOps),
    .get_buffer = get_stream,
    .close = close_reader,
    .shut_down = shut_down,
    .get_fd = get_fd,
};

static const VmfFileOps return_writer_ops = {
    .size = sizeof(VmfFileOps),
    .put_buffer = session_put_stream,
    .close = close_writer,
    .shut_down = shut_down,
};

static VmfFile *return_path(void *opaque, GError **error)
{
    VmfSession *s = opaque;

    if (s->conn->foreign && !qemu_peer_open_back(s, error)) {
        return NULL;
    }
    return s->role == VMF_ROLE_SOURCE ? vmf_file_new(&return_reader_ops, s, VMF_FILE_READ, error)
                                      : vmf_file_new(&return_writer_ops, s, VMF_FILE_WRITE, error);
}

bool session_open_file(VmfSession *s, GError **error)
{
    s->file = s->role == VMF_ROLE_SOURCE ? vmf_file_new(&source_ops, s, VMF_FILE_WRITE, error)
                                         : vmf_file_new(&destination_ops, s, VMF_FILE_READ, error);
    return s->file != NULL;
}
