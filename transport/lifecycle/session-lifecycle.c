/* SPDX-License-Identifier: BSD-2-Clause */
/* session-lifecycle.c -- making and ending a session */

#include "session-lifecycle.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cancel-fd.h"
#include "base/fault.h"
#include "device/device-life.h"
#include "session/session-answer.h"
#include "session/session-channel.h"
#include "session/session-control.h"
#include "session/session-core.h"
#include "session/session-direct.h"
#include "session/session-host.h"
#include "session/session-late-ram.h"
#include "session/session-peer.h"
#include "device/device-set.h"

/* --- making --- */

VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks)
{
    VmfSession *s = g_new0(VmfSession, 1);

    s->role = role;
    s->blocks.set = vmf_ram_blocks_ref(blocks);
    s->devices = devices_new(s);
    s->device_ops = &device_ops;
    s->core.cancel = g_cancellable_new();
    s->core.cancel_fd = cancel_fd_get(s->core.cancel);
    s->core.asking = g_cancellable_new();
    handover_init(&s->peer.handover, role == VMF_ROLE_SOURCE);
    s->outbox.wake_fd = s->streams.readable_fd = -1;
    s->setup.began = g_get_monotonic_time();
    s->streams.out_credit = STREAM_RING;
    s->streams.in_credit_told = STREAM_RING;
    s->blocks.shorter = g_ptr_array_new_with_free_func(g_free);
    s->peer.blocks = g_array_new(FALSE, FALSE, sizeof(MessageBlock));
    g_mutex_init(&s->core.lock);
    g_cond_init(&s->core.changed);
    return s;
}

bool session_make_descriptors(VmfSession *s, GError **error)
{
    s->outbox.wake_fd = VMF_FAULT("eventfd wake") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->streams.readable_fd =
        VMF_FAULT("eventfd readable") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->outbox.wake_fd < 0 || s->streams.readable_fd < 0 || s->core.cancel_fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot create event descriptors: %s",
                    g_strerror(errno));
        return false;
    }
    return true;
}

void session_adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri)
{
    if (!conn->ops) {
        conn->ops = ops;
    }
    s->ops = conn->ops;
    s->conn = conn;
    s->peer_ops = conn->foreign ? &session_qemu_peer : &session_native_peer;
    conn->role = s->role;
    conn->host = &session_host;
    conn->session = s;
    conn->ram = s->blocks.set;
    conn->cancel = s->core.cancel;
    conn->cancel_fd = s->core.cancel_fd;
    conn->timeout_ms = (uint32_t)vmf_uri_get_uint(uri, "timeout");
    conn->heartbeat_ms = MAX(conn->timeout_ms / 4, 10);
    conn->max_inflight = vmf_uri_get_uint(uri, "max-inflight");
    s->options.connect_timeout_us = (gint64)vmf_uri_get_uint(uri, "connect-timeout") * 1000;
    s->options.zero_detect = vmf_uri_get_bool(uri, "zero-detect");
    s->options.device.workers = (unsigned)vmf_uri_get_uint(uri, "device-workers");
    s->options.device.bytes = vmf_uri_get_uint(uri, "device-queue");
    s->options.device.buffers = (unsigned)vmf_uri_get_uint(uri, "device-buffers");
    s->options.device.all_bytes = vmf_uri_get_uint(uri, "devices-queue");
    s->options.device.all_buffers = (unsigned)vmf_uri_get_uint(uri, "devices-buffers");
    s->options.device.timeout_us = (gint64)vmf_uri_get_uint(uri, "device-timeout") * 1000;
}

static void on_user_cancel(GCancellable *cancellable, gpointer session)
{
    (void)cancellable;
    vmf_session_cancel(session);
}

bool session_make_ready(VmfSession *s, const VmfUri *uri, GError **error)
{
    GError *failure = NULL;
    bool ok;

    g_mutex_lock(&s->core.lock);
    session_set_deadline_locked(s);
    g_mutex_unlock(&s->core.lock);
    ok = s->peer_ops->set_up(s, uri, &failure);
    if (!ok) {
        session_need_error(&failure, "setting the session up");
        session_fail(s, failure, false);
        return session_report(s, error);
    }
    s->setup.ns = (uint64_t)(g_get_monotonic_time() - s->setup.began) * 1000;
    return true;
}

gulong session_chain(VmfSession *s, GCancellable *cancellable)
{
    return cancellable ? g_cancellable_connect(cancellable, G_CALLBACK(on_user_cancel), s, NULL)
                       : 0;
}

VmfSession *session_finish(VmfSession *s, bool ok, GCancellable *cancellable, gulong chained)
{
    if (chained) {
        g_cancellable_disconnect(cancellable, chained);
    }
    if (!ok) {
        vmf_session_free(s);
        return NULL;
    }
    return s;
}

/* A peer that knows the UUID can speak for the session, so nobody may guess it. */
static bool make_uuid(uint8_t uuid[VMF_UUID_BYTES], GError **error)
{
    ssize_t n;

    do {
        n = VMF_FAULT("getrandom") ? (errno = ENOSYS, -1) : getrandom(uuid, VMF_UUID_BYTES, 0);
    } while (n < 0 && errno == EINTR);
    if (n != VMF_UUID_BYTES) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot get random bytes: %s",
                    g_strerror(errno));
        return false;
    }
    return true;
}

static VmfConn *connect_to(VmfSession *s, const VmfUri *uri, uint8_t uuid[VMF_UUID_BYTES],
                           GError **error)
{
    GError *failure = NULL;
    VmfConn *conn = NULL;

    if (session_make_descriptors(s, &failure) && make_uuid(uuid, &failure)) {
        conn = direct_usable(s->reach.connect_ops->connect(uri, uuid, s->core.cancel, &failure),
                             s->reach.connect_ops, &failure);
    }
    if (!conn) {
        session_need_error(&failure, "connecting");
        g_propagate_error(error, failure);
    }
    return conn;
}

VmfSession *vmf_session_connect(const VmfUri *uri, VmfRamBlocks *blocks, GCancellable *cancellable,
                                GError **error)
{
    const VmfTransport *ops = vmf_transport_find(vmf_uri_scheme(uri), error);
    VmfSession *s;
    VmfConn *conn;
    uint8_t uuid[VMF_UUID_BYTES];
    gulong chained;
    bool ok = false;

    if (!ops) {
        return NULL;
    }
    s = session_new(VMF_ROLE_SOURCE, blocks);
    s->reach.uri = vmf_uri_ref((VmfUri *)uri);
    s->reach.connect_ops = ops;
    chained = session_chain(s, cancellable);
    conn = connect_to(s, uri, uuid, error);
    if (conn) {
        session_adopt(s, conn, ops, uri);
        memcpy(conn->uuid, uuid, sizeof(uuid));
        ok = session_make_ready(s, uri, error);
    }
    return session_finish(s, ok, cancellable, chained);
}

/* --- ending --- */

/* Time for the peer to close, so that this side's last message is not lost with the connection. */
#define LINGER_US (2 * G_USEC_PER_SEC)

/*
 * Until when the destination waits for a source that does not know the outcome yet. The source
 * notices a lost connection within a time-out, and then asks over another one.
 */
static gint64 linger_end_locked(const VmfSession *s, gint64 began)
{
    const gint64 timeout_us = (gint64)s->conn->timeout_ms * 1000;

    const gint64 end =
        s->peer.lost_at ? s->peer.lost_at + 2 * timeout_us : began + MAX(LINGER_US, timeout_us);

    return s->core.hurry ? MIN(end, began + LINGER_US) : end;
}

static bool source_may_ask_locked(const VmfSession *s)
{
    if (!s->reach.answer || s->peer.handover.known) {
        return false;
    }
    /* If the connection has ended in good order, no source is left to ask. */
    return s->peer.handover.state == HANDOVER_OWNS
               ? s->peer.lost_at || !s->outbox.over
               : s->peer.handover.state == HANDOVER_DENIED && s->peer.lost_at &&
                     s->peer.handover.said_loaded;
}

static void linger(VmfSession *s)
{
    const gint64 began = g_get_monotonic_time();

    g_mutex_lock(&s->core.lock);
    while (source_may_ask_locked(s) && g_get_monotonic_time() < linger_end_locked(s, began)) {
        g_cond_wait_until(&s->core.changed, &s->core.lock, linger_end_locked(s, began));
    }
    g_mutex_unlock(&s->core.lock);
}

static void free_ring_buffers(VmfSession *s)
{
    OutMessage *message;
    Payload *payload;

    stream_clear(&s->streams.in_ring);
    stream_clear(&s->streams.out_ring);
    while ((message = g_queue_pop_head(&s->outbox.messages))) {
        g_free(message->payload);
        g_free(message);
    }
    while ((payload = g_queue_pop_head(&s->clients.free_payloads))) {
        payload_free(payload);
    }
}

static void close_descriptors(VmfSession *s)
{
    if (s->outbox.wake_fd >= 0) {
        close(s->outbox.wake_fd);
    }
    if (s->streams.readable_fd >= 0) {
        close(s->streams.readable_fd);
    }
    if (s->core.cancel_fd >= 0) {
        g_cancellable_release_fd(s->core.cancel);
    }
}

/* Sends what this side still owes the peer, or makes the session fail. */
static void end_hand_over(VmfSession *s)
{
    bool succeeded;

    g_mutex_lock(&s->core.lock);
    succeeded = handover_succeeded(&s->peer.handover);
    g_mutex_unlock(&s->core.lock);
    if (!succeeded) {
        session_fail(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the session was ended"),
                     false);
    }
    if (s->role == VMF_ROLE_DESTINATION) {
        linger(s);
        listening_remove(s);
    }
}

void vmf_session_free(VmfSession *s)
{
    unsigned allocated;

    if (!s) {
        return;
    }
    if (s->conn) {
        end_hand_over(s);
    }
    session_stop_control(s);
    session_fail(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the session was ended"), false);
    session_settle_late_ram(s);
    session_join_channels(s);
    if (s->conn) {
        s->peer_ops->close(s);
    }
    vmf_file_free(s->file);
    allocated = s->channels ? s->conn->channels : 0;
    if (s->conn) {
        s->conn->completed = handover_succeeded(&s->peer.handover);
        s->ops->close(s->conn);
    }
    devices_free(s->devices); /* until now the peer might have written to their memory */
    for (unsigned i = 0; i < allocated; i++) {
        session_channel_clear(&s->channels[i]);
    }
    g_free(s->channels);
    free_ring_buffers(s);
    close_descriptors(s);
    vmf_qemu_stream_free(s->qemu.stream);
    qemu_hooks_clear(&s->qemu.hooks);
    g_free(s->qemu.lengths);
    populated_free(s->blocks.populated);
    ram_scan_free(s->blocks.scan);
    g_free(s->blocks.wire);
    vmf_ram_blocks_unref(s->blocks.set);
    g_array_unref(s->peer.blocks);
    g_ptr_array_unref(s->blocks.shorter);
    g_object_unref(s->core.cancel);
    g_object_unref(s->core.asking);
    g_clear_pointer(&s->reach.first, g_bytes_unref);
    g_clear_pointer(&s->reach.uri, vmf_uri_unref);
    listening_unref(s->reach.listening);
    g_clear_error(&s->core.error);
    g_clear_error(&s->peer.outcome);
    g_cond_clear(&s->core.changed);
    g_mutex_clear(&s->core.lock);
    g_free(s);
}

bool vmf_session_peer_is_qemu(const VmfSession *s)
{
    return s->peer_ops->is_qemu;
}

bool vmf_session_open_return_path(VmfSession *s, GError **error)
{
    return s->peer_ops->open_back(s, error);
}

VmfFile *vmf_session_get_file(VmfSession *s)
{
    return s->file;
}
