/* SPDX-License-Identifier: BSD-2-Clause */
/* session.c -- making, failing and ending a session */

#include "devices.h"
#include "session.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cancel-fd.h"
#include "fault.h"
#include "populate.h"
#include "registry.h"

struct VmfListener {
    VmfUri *uri;
    const VmfTransport *ops;
    VmfTransportListener *listener;
    char *address;
    Populate *populate; /* the RAM of the session that comes next; or NULL */
};

/* --- failing --- */

void session_fail(VmfSession *s, GError *error, bool from_peer)
{
    unsigned channel_count;
    SessionChannel *back;
    bool first;

    g_mutex_lock(&s->lock);
    channel_count = s->channel_count;
    back = s->back;
    first = !s->error && !s->completed;
    if (first) {
        s->error = error;
        s->error_from_peer = from_peer;
        __atomic_store_n(&s->failed, 1, __ATOMIC_RELEASE);
        session_update_readable_locked(s);
        session_wake_control_locked(s);
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    if (!first) {
        g_error_free(error);
        return;
    }
    g_cancellable_cancel(s->cancel);
    for (unsigned i = 0; i < channel_count; i++) {
        mailbox_close(&s->channels[i].mailbox);
    }
    if (back) {
        mailbox_close(&back->mailbox);
    }
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

bool vmf_session_check(VmfSession *s, GError **error)
{
    return !session_failed(s) || session_report(s, error);
}

void vmf_session_fail(VmfSession *s, GError *error)
{
    session_fail(s, error, false);
}

void vmf_session_cancel(VmfSession *s)
{
    session_fail(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the migration was cancelled"),
                 false);
}

/* --- making --- */

static VmfSession *session_new(VmfRole role, VmfRamBlocks *blocks)
{
    VmfSession *s = g_new0(VmfSession, 1);

    s->role = role;
    s->blocks = vmf_ram_blocks_ref(blocks);
    s->cancel = g_cancellable_new();
    s->cancel_fd = cancel_fd_get(s->cancel);
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

static bool make_descriptors(VmfSession *s, GError **error)
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

/* A connection that the engine can use, or NULL: the transport has it back. */
static VmfConn *usable(VmfConn *conn, const VmfTransport *ops, GError **error)
{
    if (conn && !registry_check_connection(conn, ops, error)) {
        ops->close(conn);
        return NULL;
    }
    return conn;
}

/* The transport's connection becomes the session's. */
static void adopt(VmfSession *s, VmfConn *conn, const VmfTransport *ops, const VmfUri *uri)
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

/* From adopt() to a session that works; on failure the session's error is reported. */
static bool set_up(VmfSession *s, const VmfUri *uri, GError **error)
{
    GError *failure = NULL;
    bool ok;

    ok = s->conn->foreign ? session_set_up_foreign(s, &failure)
                          : session_shake_hands(s, uri, &failure) &&
                                session_start_control(s, &failure) && session_set_up(s, &failure);
    if (!ok) {
        session_fail(s,
                     failure ? failure : g_error_new(VMF_ERROR, VMF_ERROR_FAILED, "set-up failed"),
                     false);
        return session_report(s, error);
    }
    s->setup_ns = (uint64_t)(g_get_monotonic_time() - s->setup_began) * 1000;
    return true;
}

static gulong chain(VmfSession *s, GCancellable *cancellable)
{
    return cancellable ? g_cancellable_connect(cancellable, G_CALLBACK(on_user_cancel), s, NULL)
                       : 0;
}

static VmfSession *finish(VmfSession *s, bool ok, GCancellable *cancellable, gulong chained)
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

static void make_uuid(uint8_t uuid[VMF_UUID_BYTES])
{
    for (unsigned i = 0; i < VMF_UUID_BYTES; i += 4) {
        guint32 word = g_random_int();
        memcpy(uuid + i, &word, 4);
    }
}

VmfSession *vmf_session_connect(const VmfUri *uri, VmfRamBlocks *blocks, GCancellable *cancellable,
                                GError **error)
{
    const VmfTransport *ops = vmf_transport_find(vmf_uri_scheme(uri), error);
    VmfSession *s;
    uint8_t uuid[VMF_UUID_BYTES];
    gulong chained;
    bool ok = false;

    if (!ops) {
        return NULL;
    }
    s = session_new(VMF_ROLE_SOURCE, blocks);
    chained = chain(s, cancellable);
    make_uuid(uuid);
    if (make_descriptors(s, error)) {
        VmfConn *conn = usable(ops->connect(uri, uuid, s->cancel, error), ops, error);

        if (conn) {
            adopt(s, conn, ops, uri);
            memcpy(conn->uuid, uuid, sizeof(uuid));
            ok = set_up(s, uri, error);
        }
    }
    return finish(s, ok, cancellable, chained);
}

/* --- listening --- */

VmfListener *vmf_listener_new(const VmfUri *uri, GError **error)
{
    const VmfTransport *ops = vmf_transport_find(vmf_uri_scheme(uri), error);
    VmfTransportListener *transport = ops ? ops->listen(uri, error) : NULL;
    VmfListener *listener;

    if (!transport) {
        return NULL;
    }
    listener = g_new0(VmfListener, 1);
    listener->ops = ops;
    listener->listener = transport;
    listener->uri = vmf_uri_ref((VmfUri *)uri);
    listener->address = ops->listener_address(transport);
    return listener;
}

const char *vmf_listener_address(const VmfListener *listener)
{
    return listener->address;
}

void vmf_listener_free(VmfListener *listener)
{
    if (listener) {
        populate_free(listener->populate);
        listener->ops->listener_free(listener->listener);
        vmf_uri_unref(listener->uri);
        g_free(listener->address);
        g_free(listener);
    }
}

/* Waits for a connection, and uses that time to make RAM ready. */
static VmfConn *await_connection(VmfListener *listener, VmfSession *s, GError **error)
{
    VmfConn *conn;

    if (listener->populate) {
        populate_run(listener->populate);
    }
    conn =
        usable(listener->ops->accept(listener->listener, s->cancel, error), listener->ops, error);
    if (listener->populate) {
        populate_pause(listener->populate);
    }
    return conn;
}

/* The session can give back what it does not need of it. */
static void note_populated(VmfSession *s, const Populate *populate)
{
    s->populated_count = vmf_ram_blocks_count(s->blocks);
    s->populated = g_new0(bool, s->populated_count);
    for (unsigned i = 0; i < s->populated_count; i++) {
        s->populated[i] = populate_block_bytes(populate, i) != 0;
    }
    s->populated_bytes = populate_bytes(populate);
}

static VmfSession *accept_named(VmfListener *listener, VmfRamBlocks *blocks,
                                GCancellable *cancellable, GError **error)
{
    for (;;) {
        VmfSession *s = session_new(VMF_ROLE_DESTINATION, blocks);
        gulong chained = chain(s, cancellable);
        VmfConn *conn = NULL;
        GError *failure = NULL;
        bool named = false;

        if (make_descriptors(s, &failure)) {
            conn = await_connection(listener, s, &failure);
        }
        if (conn) {
            adopt(s, conn, listener->ops, listener->uri);
            s->setup_began = g_get_monotonic_time();
            if (listener->populate) {
                note_populated(s, listener->populate);
            }
            if (set_up(s, listener->uri, &failure)) {
                return finish(s, true, cancellable, chained);
            }
            /* The channel count is known once a HELLO was understood. */
            named = conn->channels != 0;
        }
        finish(s, false, cancellable, chained);
        if (!conn || named || g_cancellable_is_cancelled(cancellable)) {
            g_propagate_error(error, failure);
            return NULL;
        }
        g_debug("dropped a peer that named no session: %s", failure->message);
        g_error_free(failure);
    }
}

static void prepare_ram(VmfListener *listener, VmfRamBlocks *blocks)
{
    /* A source that failed leaves what was made to the next one, with the knowledge of it. */
    if (blocks && !(listener->populate && populate_ram(listener->populate) == blocks)) {
        populate_free(listener->populate);
        listener->populate =
            vmf_uri_get_bool(listener->uri, "populate") ? populate_new(blocks, "") : NULL;
    }
    if (VMF_TRANSPORT_HAS(listener->ops, listener_ram)) {
        listener->ops->listener_ram(listener->listener, blocks);
    }
}

VmfSession *vmf_session_accept(VmfListener *listener, VmfRamBlocks *blocks,
                               GCancellable *cancellable, GError **error)
{
    VmfSession *session;

    prepare_ram(listener, blocks);
    session = accept_named(listener, blocks, cancellable, error);
    prepare_ram(listener, NULL); /* what the session did not take */
    return session;
}

/* --- ending --- */

/* Time for the peer to say goodbye, so that our last word is not lost with the connection. */
#define LINGER_US (2 * G_USEC_PER_SEC)

static void linger(VmfSession *s)
{
    gint64 end = g_get_monotonic_time() + LINGER_US;

    g_mutex_lock(&s->lock);
    while (s->completed && !s->bye && !s->peer_closed &&
           g_cond_wait_until(&s->changed, &s->lock, end)) {
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

void vmf_session_free(VmfSession *s)
{
    unsigned allocated;

    if (!s) {
        return;
    }
    if (!s->completed) {
        session_fail(s, g_error_new(VMF_ERROR, VMF_ERROR_CANCELLED, "the session was ended"),
                     false);
    } else if (s->role == VMF_ROLE_DESTINATION && !s->conn->foreign) {
        linger(s);
    }
    session_stop_control(s);
    g_cancellable_cancel(s->cancel);
    session_join_channels(s);
    foreign_close_back(s);
    vmf_file_free(s->file);
    allocated = s->channels ? s->conn->channels : 0;
    if (s->conn) {
        s->conn->completed = s->completed;
        s->ops->close(s->conn);
    }
    devices_free(s->devices); /* the peer might have written into their memory until now */
    for (unsigned i = 0; i < allocated; i++) {
        session_channel_clear(&s->channels[i]);
    }
    g_free(s->channels);
    free_ring_buffers(s);
    close_descriptors(s);
    qemu_stream_free(s->qemu);
    qemu_hooks_clear(&s->hooks);
    g_free(s->lengths);
    g_free(s->populated);
    vmf_ram_scan_free(s->scan);
    g_free(s->wire_blocks);
    vmf_ram_blocks_unref(s->blocks);
    g_array_unref(s->peer_blocks);
    g_ptr_array_unref(s->shorter_blocks);
    g_object_unref(s->cancel);
    g_clear_error(&s->error);
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
    return !s->conn->foreign || foreign_open_back(s, error);
}

VmfFile *vmf_session_get_file(VmfSession *s)
{
    return s->file;
}
