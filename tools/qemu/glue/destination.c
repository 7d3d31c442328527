/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The destination: the stream, holding back its newest byte, accepting. */

#include "glue.h"

#include "compat.h"

/* --- the stream --- */

/*
 * QEMU skips the last part of the stream, a description, without a look at errors. It would run the
 * VM then.
 */
static void G_NORETURN incoming_failed(const char *why)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    error_report("vmferry: the incoming migration failed: %s", why);
    migrate_set_state(&mis->state, MIGRATION_STATUS_ACTIVE, MIGRATION_STATUS_FAILED);
    exit(EXIT_FAILURE);
}

static void *hand_over_main(void *opaque)
{
    QIOChannelVmferry *rioc = opaque;
    bool owner = vmf_session_complete(rioc->session, &rioc->hand_over_error);

    qatomic_store_release(&rioc->hand_over, owner ? HAND_OVER_OWNER : HAND_OVER_FAILED);
    event_notifier_set(&rioc->handed_over);
    object_unref(OBJECT(rioc));
    return NULL;
}

static void hand_over_start(QIOChannelVmferry *rioc)
{
    rioc->hand_over = HAND_OVER_RUNS;
    object_ref(OBJECT(rioc));
    if (!glue_thread("vmferry-own", hand_over_main, rioc, &rioc->hand_over_error)) {
        vmf_session_fail(rioc->session, g_error_copy(rioc->hand_over_error));
        rioc->hand_over = HAND_OVER_FAILED; /* the source keeps the VM */
        event_notifier_set(&rioc->handed_over);
        object_unref(OBJECT(rioc));
    }
}

/* Whether the source is lost, and has not said that it keeps the VM. */
static bool source_was_lost(const GError *error)
{
    return g_error_matches(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME) ||
           g_error_matches(error, VMF_ERROR, VMF_ERROR_PEER_LOST) ||
           g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT);
}

/* The VM may be complete here, so it must neither run by itself nor be dropped. */
static void stay_stopped(const GError *error)
{
    autostart = 0;
    error_report("vmferry: the source was lost before it said GO: %s. If the VM is complete it "
                 "stays stopped here, and the outcome is unknown: look whether the source runs "
                 "it; only if it does not and never will, \"cont\" runs it here",
                 error->message);
}

static void hand_over_ended(QIOChannelVmferry *rioc)
{
    if (rioc->hand_over_error) {
        if (!source_was_lost(rioc->hand_over_error)) {
            incoming_failed(rioc->hand_over_error->message);
        }
        stay_stopped(rioc->hand_over_error);
        g_clear_error(&rioc->hand_over_error);
    }
}

/* Reads, and holds back the newest byte until the VM is this side's. */
static ssize_t read_holding_back(QIOChannelVmferry *rioc, uint8_t *to, size_t size)
{
    size_t n;

    if (qatomic_load_acquire(&rioc->hand_over) == HAND_OVER_RUNS) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    if (rioc->hand_over != HAND_OVER_NOT_YET) {
        hand_over_ended(rioc);
        return reading_release(&rioc->held, to);
    }
    n = reading_take_holding_back(rioc->file, &rioc->held, to, size);
    if (n) {
        return n;
    }
    if (!vmf_file_would_block(rioc->file) && vmf_file_check(rioc->file, NULL)) {
        hand_over_start(rioc); /* the end */
    }
    return QIO_CHANNEL_ERR_BLOCK;
}

/*
 * The source was lost. If the newest byte was the last one, QEMU may have it: the VM is loaded and
 * stays stopped. If not, QEMU asks for more, and fails.
 */
static bool release_after_loss(QIOChannelVmferry *rioc, const GError *error, uint8_t *to)
{
    if (!rioc->held.there || !source_was_lost(error)) {
        return false;
    }
    stay_stopped(error);
    return reading_release(&rioc->held, to);
}

static ssize_t read_stream(QIOChannelVmferry *rioc, uint8_t *to, size_t size, Error **errp)
{
    g_autoptr(GError) error = NULL;
    ssize_t n = 0;

    if (rioc->return_path) {
        n = reading_take(rioc->file, to, size);
    } else {
        n = read_holding_back(rioc, to, size);
    }
    if (n <= 0 && rioc->hand_over == HAND_OVER_NOT_YET && !vmf_file_check(rioc->file, &error)) {
        if (!rioc->return_path && release_after_loss(rioc, error, to)) {
            return 1;
        }
        incoming_failed(error->message);
    }
    if (n == 0 && vmf_file_would_block(rioc->file)) {
        n = QIO_CHANNEL_ERR_BLOCK;
    }
    return n;
}

static ssize_t write_back(QIOChannelVmferry *rioc, const struct iovec *iov, size_t niov,
                          Error **errp)
{
    g_autoptr(GError) error = NULL;
    ssize_t done;

    if (!rioc->back) { /* the stream may ask for one in any case */
        incoming_failed(
            "the source, which is stock QEMU, asks for answers, but made no connection for "
            "them: before 8.0 its return path does not work by rdma; turn the return-path "
            "capability off there");
    }
    done = channel_put(rioc->back, iov, niov, false, &error);
    if (done < 0) {
        rioc->write_failed = true;
        error_setg(errp, "vmferry: %s", error->message);
    }
    return done;
}

static const ChannelSide destination_side = {
    .write = write_back,
    .read = read_stream,
};

/* --- accepting --- */

/*
 * How long QEMU's monitor waits for the listener, so that its answer can say why there is none.
 * That takes no time, except for the look-up of a name.
 */
#define LISTEN_WAIT_MS 2000

typedef enum { LISTENER_TO_COME, LISTENER_THERE, LISTENER_FAILED } ListenerState;

typedef struct Incoming {
    VmfUri *uri;
    VmfListener *listener;
    BlockList list;
    VmfSession *session;
    bool return_path;
    Discards discards; /* passed to the channel later */

    GMutex lock; /* guards what follows */
    GCond changed;
    ListenerState state;
    bool awaited; /* the monitor still waits */
    GError *error;
} Incoming;

static void incoming_free(Incoming *in)
{
    discards_release(&in->discards);
    vmf_listener_free(in->listener);
    g_clear_pointer(&in->uri, vmf_uri_unref);
    block_list_clear(&in->list);
    g_clear_error(&in->error);
    g_mutex_clear(&in->lock);
    g_cond_clear(&in->changed);
    g_free(in);
}

/* QEMU is about to run the VM: from now on no other host writes to its memory. */
static void revoke_before_running(void *opaque, bool running, RunState state)
{
    QIOChannelVmferry *rioc = opaque;
    g_autoptr(GError) error = NULL;

    if (running && !vmf_session_revoke(rioc->session, &error)) {
        incoming_failed(error->message);
    }
}

static void *incoming_accept(void *opaque);

static void incoming_gone(void *opaque)
{
    incoming_free(opaque);
}

/*
 * By now QEMU is set to something that rdma: cannot do. This source is refused, and the next one is
 * awaited.
 */
static void incoming_refuse(Incoming *in, Error *err)
{
    g_autoptr(GError) error = NULL;

    vmf_session_fail(in->session, g_error_new(VMF_ERROR, VMF_ERROR_INVALID, "the destination: %s",
                                              error_get_pretty(err)));
    error_report_err(err);
    session_end(g_steal_pointer(&in->session), NULL, END_NOW);
    if (!glue_thread("vmferry-accept", incoming_accept, in, &error)) {
        error_report("vmferry: no longer listening: %s", error->message);
        incoming_free(in);
    }
}

static void incoming_connected(void *opaque)
{
    Incoming *in = opaque;
    g_autoptr(GError) error = NULL;
    Error *err = NULL;
    QIOChannelVmferry *rioc;
    QEMUFile *f;

    if (!glue_can_migrate(&err)) {
        incoming_refuse(in, err);
        return;
    }
    rioc = channel_new(in->session, in->list.blocks, &destination_side, in->return_path, &error);
    if (rioc) {
        rioc->discards = in->discards;
        in->discards = DISCARDS_FREE;
    }
    incoming_free(in);
    if (!rioc) {
        incoming_failed(error->message);
    }
    if (rioc->return_path) {
        rioc->vm_change = qemu_add_vm_change_state_handler(revoke_before_running, rioc);
    }
    f = qemu_file_new_input(QIO_CHANNEL(rioc));
    interface_connected(rioc, f);
    object_unref(OBJECT(rioc));
    compat_process_incoming(f);
}

static bool read_greeting(Incoming *in, GError **error)
{
    VmfFile *file = vmf_session_get_file(in->session);
    uint32_t magic, flags;

    if (vmf_session_peer_is_qemu(in->session)) {
        in->return_path = vmf_session_open_return_path(in->session, NULL);
        return true;
    }
    magic = vmf_get_be32(file);
    flags = vmf_get_be32(file);
    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (magic != VMF_QEMU_GREETING || flags & ~VMF_QEMU_RETURN_PATH) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source is not QEMU with vmferry of this version (0x%08x, flags 0x%x)",
                    magic, flags);
        vmf_session_fail(in->session, g_error_copy(*error));
        return false;
    }
    in->return_path = flags & VMF_QEMU_RETURN_PATH;
    return true;
}

/*
 * Waits for the source. If a source fails before the migration begins, the listener is as it was.
 */
static void *incoming_accept(void *opaque)
{
    Incoming *in = opaque;

    for (;;) {
        g_autoptr(GError) error = NULL;

        in->session = vmf_session_accept(in->listener, in->list.ram, NULL, &error);
        if (in->session && read_greeting(in, &error)) {
            aio_bh_schedule_oneshot(qemu_get_aio_context(), incoming_connected, in);
            return NULL;
        }
        g_clear_pointer(&in->session, vmf_session_free);
        if (g_error_matches(error, VMF_ERROR, VMF_ERROR_DEVICE)) {
            error_report("vmferry: no longer listening: %s", error->message);
            aio_bh_schedule_oneshot(qemu_get_aio_context(), incoming_gone, in);
            return NULL;
        }
        error_report("vmferry: a source failed to set a migration up (still listening): %s",
                     error->message);
    }
}

static void incoming_not_listening(void *opaque)
{
    Incoming *in = opaque;

    incoming_failed(in->error->message);
}

static void *incoming_listen(void *opaque)
{
    Incoming *in = opaque;
    bool awaited, listens;

    in->listener = vmf_listener_new(in->uri, &in->error);
    listens = in->listener != NULL;
    g_mutex_lock(&in->lock);
    in->state = listens ? LISTENER_THERE : LISTENER_FAILED;
    awaited = in->awaited;
    g_cond_signal(&in->changed);
    g_mutex_unlock(&in->lock);
    if (listens) {
        return incoming_accept(in);
    }
    if (!awaited) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), incoming_not_listening, in);
    }
    return NULL;
}

/* Whether the listener failed while the monitor waited for it. */
static bool listener_failed(Incoming *in)
{
    const gint64 until = g_get_monotonic_time() + LISTEN_WAIT_MS * G_TIME_SPAN_MILLISECOND;
    bool failed;

    g_mutex_lock(&in->lock);
    while (in->state == LISTENER_TO_COME && g_cond_wait_until(&in->changed, &in->lock, until)) {
    }
    in->awaited = false;
    failed = in->state == LISTENER_FAILED;
    g_mutex_unlock(&in->lock);
    return failed;
}

void destination_start(VmfUri *uri, Error **errp)
{
    Incoming *in = g_new0(Incoming, 1);
    GThread *thread;

    in->uri = uri;
    in->awaited = true;
    g_mutex_init(&in->lock);
    g_cond_init(&in->changed);
    if (!block_list_fill(&in->list, errp) || !discards_reserve(&in->discards, in->list.ram, errp)) {
        incoming_free(in);
        return;
    }
    thread = glue_thread_new("vmferry-accept", incoming_listen, in, &in->error);
    if (thread && !listener_failed(in)) {
        g_thread_unref(thread);
        return;
    }
    if (thread) {
        g_thread_join(thread);
    }
    error_setg(errp, "vmferry: %s", in->error->message);
    incoming_free(in);
}
