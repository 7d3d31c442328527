/* SPDX-License-Identifier: BSD-2-Clause */
/* session-lifecycle.c -- making, failing and ending a session */

#include "device/device-set.h"
#include "session/session-state.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cancel-fd.h"
#include "base/fault.h"
#include "registry/registry.h"

/* --- failing --- */

void session_need_error(GError **failure, const char *what)
{
    if (!*failure) {
        *failure = g_error_new(VMF_ERROR, VMF_ERROR_FAILED,
                               "%s failed, and the transport or the caller gave no reason", what);
    }
}

uint64_t session_error_code(const GError *error)
{
    return error->domain == VMF_ERROR ? (uint64_t)error->code : VMF_ERROR_FAILED;
}

/* What failed is told to everything that waits for the session's work. */
static void stop_work(VmfSession *s, unsigned channel_count, SessionChannel *back)
{
    g_cancellable_cancel(s->cancel);
    for (unsigned i = 0; i < channel_count; i++) {
        mailbox_close(&s->channels[i].mailbox);
    }
    if (back) {
        mailbox_close(&back->mailbox);
    }
}

/* Takes the error over, as the session's or as the hand-over's; returns whether it is the first. */
static bool take_error_locked(VmfSession *s, GError *error, HandoverEvent event)
{
    const HandoverState before = s->handover.state;

    session_event_locked(s, event);
    if (!s->error) {
        s->error = error;
        s->error_from_peer = event == HANDOVER_GOT_ERROR || event == HANDOVER_TOLD_KEPT;
        __atomic_store_n(&s->failed, 1, __ATOMIC_RELEASE);
        session_update_readable_locked(s);
        session_wake_control_locked(s);
        return true;
    }
    /* This decided, not what failed first. Where it decided nothing, session_outcome() says that.
     */
    if (s->handover.state != before && handover_over(&s->handover) &&
        handover_owner(&s->handover) != VMF_OWNER_UNKNOWN && !s->outcome) {
        s->outcome = error;
    } else {
        g_error_free(error);
    }
    return false;
}

void session_fail_as(VmfSession *s, GError *error, HandoverEvent event)
{
    unsigned channel_count;
    SessionChannel *back;
    bool first;

    session_need_error(&error, "the session");
    g_mutex_lock(&s->lock);
    channel_count = s->channel_count;
    back = s->back;
    if (event == HANDOVER_CANCEL) {
        s->hurry = true;
    }
    first = take_error_locked(s, error, event);
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    if (event == HANDOVER_CANCEL) {
        g_cancellable_cancel(s->asking);
    }
    if (first) {
        stop_work(s, channel_count, back);
    }
}

void session_fail(VmfSession *s, GError *error, bool from_peer)
{
    session_fail_as(s, error, from_peer ? HANDOVER_GOT_ERROR : HANDOVER_FAULT);
}

void session_lost(VmfSession *s, GError *error)
{
    session_fail_as(s, error, HANDOVER_LOST);
}

bool session_report(VmfSession *s, GError **error)
{
    g_mutex_lock(&s->lock);
    if (s->error && error) {
        *error = g_error_copy(s->error);
    } else if (!s->error) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "the session has ended");
    }
    g_mutex_unlock(&s->lock);
    return false;
}

void vmf_session_fail(VmfSession *s, GError *error)
{
    session_fail(s, error, false);
}

void vmf_session_cancel(VmfSession *s)
{
    session_fail_as(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the migration was cancelled"),
                    HANDOVER_CANCEL);
}

/* --- making --- */

VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks)
{
    VmfSession *s = g_new0(VmfSession, 1);

    s->role = role;
    s->blocks = vmf_ram_blocks_ref(blocks);
    s->cancel = g_cancellable_new();
    s->cancel_fd = cancel_fd_get(s->cancel);
    s->asking = g_cancellable_new();
    handover_init(&s->handover, role == VMF_ROLE_SOURCE);
    s->wake_fd = s->readable_fd = -1;
    s->setup_began = g_get_monotonic_time();
    s->out_credit = STREAM_RING;
    s->in_credit_told = STREAM_RING;
    s->shorter_blocks = g_ptr_array_new_with_free_func(g_free);
    s->peer_blocks = g_array_new(FALSE, FALSE, sizeof(MessageBlock));
    g_mutex_init(&s->lock);
    g_cond_init(&s->changed);
    return s;
}

bool session_make_descriptors(VmfSession *s, GError **error)
{
    s->wake_fd = VMF_FAULT("eventfd wake") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->readable_fd = VMF_FAULT("eventfd readable") ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake_fd < 0 || s->readable_fd < 0 || s->cancel_fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot create event descriptors: %s",
                    g_strerror(errno));
        return false;
    }
    return true;
}

VmfConn *session_usable(VmfConn *conn, const VmfTransport *ops, GError **error)
{
    if (conn && !registry_check_connection(conn, ops, error)) {
        ops->close(conn);
        return NULL;
    }
    return conn;
}

void session_adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri)
{
    if (!conn->ops) {
        conn->ops = ops;
    }
    s->ops = conn->ops;
    s->conn = conn;
    conn->role = s->role;
    conn->host = &session_host;
    conn->session = s;
    conn->ram = s->blocks;
    conn->cancel = s->cancel;
    conn->cancel_fd = s->cancel_fd;
    conn->timeout_ms = (uint32_t)vmf_uri_get_uint(uri, "timeout");
    conn->heartbeat_ms = MAX(conn->timeout_ms / 4, 10);
    conn->max_inflight = vmf_uri_get_uint(uri, "max-inflight");
    s->connect_timeout_us = (gint64)vmf_uri_get_uint(uri, "connect-timeout") * 1000;
    s->zero_detect = vmf_uri_get_bool(uri, "zero-detect");
    s->device_options.workers = (unsigned)vmf_uri_get_uint(uri, "device-workers");
    s->device_options.bytes = vmf_uri_get_uint(uri, "device-queue");
    s->device_options.buffers = (unsigned)vmf_uri_get_uint(uri, "device-buffers");
    s->device_options.all_bytes = vmf_uri_get_uint(uri, "devices-queue");
    s->device_options.all_buffers = (unsigned)vmf_uri_get_uint(uri, "devices-buffers");
    s->device_options.timeout_us = (gint64)vmf_uri_get_uint(uri, "device-timeout") * 1000;
}

static void on_user_cancel(GCancellable *cancellable, gpointer session)
{
    (void)cancellable;
    vmf_session_cancel(session);
}

/*
 * A peer that only shows that it lives holds nobody for ever. Registering all of a large RAM takes
 * its time on the slowest of machines, so that counts.
 */
#define SETUP_BYTES_PER_SECOND (256ull << 20)

static void set_deadline(VmfSession *s)
{
    const uint64_t work_us =
        vmf_ram_blocks_total(s->blocks) / (SETUP_BYTES_PER_SECOND / G_USEC_PER_SEC);

    s->setup_deadline =
        g_get_monotonic_time() + s->connect_timeout_us + (gint64)MIN(work_us, G_MAXINT64 / 4);
}

bool session_make_ready(VmfSession *s, const VmfUri *uri, GError **error)
{
    GError *failure = NULL;
    bool ok;

    set_deadline(s);
    ok = s->conn->foreign ? session_set_up_foreign(s, &failure)
                          : session_shake_hands(s, uri, &failure) &&
                                session_start_control(s, &failure) && session_set_up(s, &failure);
    if (!ok) {
        session_need_error(&failure, "setting the session up");
        session_fail(s, failure, false);
        return session_report(s, error);
    }
    s->setup_ns = (uint64_t)(g_get_monotonic_time() - s->setup_began) * 1000;
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

/* Who knows the number can speak for the session: nobody can guess it. */
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
        conn = session_usable(s->connect_ops->connect(uri, uuid, s->cancel, &failure),
                              s->connect_ops, &failure);
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
    s->uri = vmf_uri_ref((VmfUri *)uri);
    s->connect_ops = ops;
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

/* Time for the peer to say goodbye, so that our last word is not lost with the connection. */
#define LINGER_US (2 * G_USEC_PER_SEC)

/*
 * Until when the destination is there for a source that does not know yet. A connection that
 * breaks is noticed by the source within a time-out, and it asks for another one.
 */
static gint64 linger_end_locked(const VmfSession *s, gint64 began)
{
    const gint64 timeout_us = (gint64)s->conn->timeout_ms * 1000;

    const gint64 end =
        s->lost_at ? s->lost_at + 2 * timeout_us : began + MAX(LINGER_US, timeout_us);

    return s->hurry ? MIN(end, began + LINGER_US) : end;
}

static bool source_may_ask_locked(const VmfSession *s)
{
    if (s->conn->foreign || !s->answer || s->handover.known) {
        return false;
    }
    /* After a good end of the connection nobody is there to ask. */
    return s->handover.state == HANDOVER_OWNS
               ? s->lost_at || !s->control_over
               : s->handover.state == HANDOVER_DENIED && s->lost_at && s->handover.said_loaded;
}

static void linger(VmfSession *s)
{
    const gint64 began = g_get_monotonic_time();

    g_mutex_lock(&s->lock);
    while (source_may_ask_locked(s) && g_get_monotonic_time() < linger_end_locked(s, began)) {
        g_cond_wait_until(&s->changed, &s->lock, linger_end_locked(s, began));
    }
    g_mutex_unlock(&s->lock);
}

static void free_ring_buffers(VmfSession *s)
{
    OutMessage *message;
    Payload *payload;

    stream_clear(&s->in_ring);
    stream_clear(&s->out_ring);
    while ((message = g_queue_pop_head(&s->out))) {
        g_free(message->payload);
        g_free(message);
    }
    while ((payload = g_queue_pop_head(&s->free_payloads))) {
        payload_free(payload);
    }
}

static void close_descriptors(VmfSession *s)
{
    if (s->wake_fd >= 0) {
        close(s->wake_fd);
    }
    if (s->readable_fd >= 0) {
        close(s->readable_fd);
    }
    if (s->cancel_fd >= 0) {
        g_cancellable_release_fd(s->cancel);
    }
}

/* What this side still owes to the other, or the error that ends it. */
static void end_hand_over(VmfSession *s)
{
    bool succeeded;

    g_mutex_lock(&s->lock);
    succeeded = handover_succeeded(&s->handover);
    g_mutex_unlock(&s->lock);
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
    session_join_channels(s);
    qemu_peer_close_back(s);
    vmf_file_free(s->file);
    allocated = s->channels ? s->conn->channels : 0;
    if (s->conn) {
        s->conn->completed = handover_succeeded(&s->handover);
        s->ops->close(s->conn);
    }
    devices_free(s->devices); /* the peer might have written into their memory until now */
    for (unsigned i = 0; i < allocated; i++) {
        session_channel_clear(&s->channels[i]);
    }
    g_free(s->channels);
    free_ring_buffers(s);
    close_descriptors(s);
    vmf_qemu_stream_free(s->qemu);
    qemu_hooks_clear(&s->hooks);
    g_free(s->lengths);
    g_free(s->populated);
    ram_scan_free(s->scan);
    g_free(s->wire_blocks);
    vmf_ram_blocks_unref(s->blocks);
    g_array_unref(s->peer_blocks);
    g_ptr_array_unref(s->shorter_blocks);
    g_object_unref(s->cancel);
    g_object_unref(s->asking);
    g_clear_pointer(&s->first, g_bytes_unref);
    g_clear_pointer(&s->uri, vmf_uri_unref);
    listening_unref(s->listening);
    g_clear_error(&s->error);
    g_clear_error(&s->outcome);
    g_cond_clear(&s->changed);
    g_mutex_clear(&s->lock);
    g_free(s);
}

bool vmf_session_peer_is_qemu(const VmfSession *s)
{
    return s->conn->foreign;
}

bool vmf_session_open_return_path(VmfSession *s, GError **error)
{
    return !s->conn->foreign || qemu_peer_open_back(s, error);
}

VmfFile *vmf_session_get_file(VmfSession *s)
{
    return s->file;
}
