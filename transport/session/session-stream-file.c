/* SPDX-License-Identifier: BSD-2-Clause */
/* session-stream-file.c -- the session's streams as migration files, both ways */

#include "session-stream-file.h"

#include "session-core.h"
#include "session-outcome.h"
#include "session-peer.h"
#include "session-ram.h"
#include "session-waking.h"

/* --- writing --- */

bool session_flush_last(VmfSession *s, GError **error)
{
    if (vmf_flush_ram_pages(s->file, VMF_FLUSH_FINAL)) {
        return true;
    }
    return session_failed(s) ? session_outcome(s, error) : vmf_file_check(s->file, error);
}

void session_end_stream(VmfSession *s)
{
    g_mutex_lock(&s->core.lock);
    s->streams.out_ended = true;
    session_wake_control_locked(s);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
}

/* --- reading --- */

/* Whether bytes are left that arrived before the peer was lost: they can still be read. */
static bool outlives_its_peer_locked(VmfSession *s)
{
    return (g_error_matches(s->core.error, VMF_ERROR, VMF_ERROR_PEER_LOST) ||
            g_error_matches(s->core.error, VMF_ERROR, VMF_ERROR_TIMEOUT)) &&
           stream_readable(&s->streams.in_ring, session_seen_locked(s)) > 0;
}

static ssize_t get_stream(void *opaque, void *buffer, size_t size, uint64_t position, bool blocking,
                          GError **error)
{
    VmfSession *s = opaque;
    size_t part;

    (void)position;
    g_mutex_lock(&s->core.lock);
    while (blocking && !session_readable_locked(s)) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    if (s->core.error && !outlives_its_peer_locked(s)) {
        g_mutex_unlock(&s->core.lock);
        session_report(s, error);
        return VMF_IO_ERROR;
    }
    part = stream_readable(&s->streams.in_ring, session_seen_locked(s));
    part = MIN(part, size);
    if (!part) {
        bool end = s->streams.in_ended && s->streams.in_ring.head == s->streams.in_ring.tail;

        g_mutex_unlock(&s->core.lock);
        return end ? 0 : VMF_IO_WOULD_BLOCK;
    }
    stream_take(&s->streams.in_ring, buffer, part);
    s->streams.bytes += s->role == VMF_ROLE_DESTINATION ? part : 0;
    session_update_readable_locked(s);
    g_mutex_unlock(&s->core.lock);
    s->peer_ops->took(s);
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

    return s->streams.readable_fd;
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

static VmfFile *open_writer(VmfSession *s, bool source, GError **error)
{
    const VmfFileOps ops = {
        .size = sizeof(ops),
        .put_buffer = s->peer_ops->put_stream,
        .close = close_writer,
        .shut_down = shut_down,
        .get_return_path = source ? return_path : NULL,
        .save_ram_page = source ? s->peer_ops->save_ram : NULL,
        .flush_ram_pages = source ? session_flush_ram : NULL,
    };

    return vmf_file_new(&ops, s, VMF_FILE_WRITE, error);
}

static VmfFile *open_reader(VmfSession *s, bool destination, GError **error)
{
    const VmfFileOps ops = {
        .size = sizeof(ops),
        .get_buffer = get_stream,
        .close = close_reader,
        .shut_down = shut_down,
        .get_fd = get_fd,
        .get_return_path = destination ? return_path : NULL,
    };

    return vmf_file_new(&ops, s, VMF_FILE_READ, error);
}

static VmfFile *return_path(void *opaque, GError **error)
{
    VmfSession *s = opaque;

    if (!s->peer_ops->open_back(s, error)) {
        return NULL;
    }
    return s->role == VMF_ROLE_SOURCE ? open_reader(s, false, error) : open_writer(s, false, error);
}

bool session_open_file(VmfSession *s, GError **error)
{
    s->file =
        s->role == VMF_ROLE_SOURCE ? open_writer(s, true, error) : open_reader(s, true, error);
    return s->file != NULL;
}
