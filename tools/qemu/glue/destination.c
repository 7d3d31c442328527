/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The destination: the stream, holding back its newest byte, accepting. */

#include "glue.h"

#include "compat.h"

/* --- the stream --- */

/*
 * QEMU does not look at errors in the last part of the stream, a description
 * that it skips, and would run the VM.
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

/* Whether the source is gone, as opposed to having said that it goes on itself. */
static bool source_was_lost(const GError *error)
{
    return g_error_matches(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME) ||
           g_error_matches(error, VMF_ERROR, VMF_ERROR_PEER_LOST) ||
           g_error_matches(error, VMF_ERROR, VMF_ERROR_TIMEOUT);
}

/* The VM may be complete here: it must neither run by itself nor be thrown away. */
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

/* Reads, but for the newest byte; that one when the VM is this side's. */
static ssize_t read_holding_back(QIOChannelVmferry *rioc, uint8_t *to, size_t size)
{
    size_t n = 0;

    if (qatomic_load_acquire(&rioc->hand_over) == HAND_OVER_RUNS) {
        return QIO_CHANNEL_ERR_BLOCK;
    }
    if (rioc->hand_over != HAND_OVER_NOT_YET) {
        hand_over_ended(rioc);
        n = rioc->holds;
        to[0] = rioc->held;
        rioc->holds = false;
        return n;
    }
    if (!rioc->holds) {
        rioc->holds = channel_take(rioc->file, &rioc->held, 1);
    }
    if (rioc->holds) {
        n = channel_take(rioc->file, to + 1, size - 1);
        if (n) { /* the held byte comes first; the last of these is the newest */
            to[0] = rioc->held;
            rioc->held = to[n];
            return n;
        }
    }
    if (!vmf_file_would_block(rioc->file) && vmf_file_check(rioc->file, NULL)) {
        /* The end. */
        rioc->hand_over = HAND_OVER_RUNS;
        object_ref(OBJECT(rioc));
        g_thread_unref(g_thread_new("vmferry-own", hand_over_main, rioc));
    }
    return QIO_CHANNEL_ERR_BLOCK;
}

/*
 * The source was lost. If the newest byte was the last one, QEMU may have it and
 * finish, for the VM to stay stopped. If it was not, QEMU will ask for more and
 * fail.
 */
static bool release_after_loss(QIOChannelVmferry *rioc, const GError *error, uint8_t *to)
{
    if (!rioc->holds || !source_was_lost(error)) {
        return false;
    }
    stay_stopped(error);
    to[0] = rioc->held;
    rioc->holds = false;
    return true;
}

ssize_t destination_read(QIOChannelVmferry *rioc, uint8_t *to, size_t size)
{
    g_autoptr(GError) error = NULL;
    ssize_t n = 0;

    if (!rioc->return_path && size > 1) {
        n = read_holding_back(rioc, to, size);
    } else {
        n = channel_take(rioc->file, to, size);
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

ssize_t destination_write(QIOChannelVmferry *rioc, const struct iovec *iov, size_t niov,
                          Error **errp)
{
    g_autoptr(GError) error = NULL;
    ssize_t done;

    if (!rioc->back) { /* the stream may ask for one all the same */
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

/* --- accepting --- */

typedef struct Incoming {
    VmfListener *listener;
    BlockList list;
    VmfSession *session;
    bool return_path;
    bool discards; /* as in QIOChannelVmferry */
} Incoming;

static void incoming_free(Incoming *in)
{
    discards_release(&in->discards);
    vmf_listener_free(in->listener);
    block_list_clear(&in->list);
    g_free(in);
}

/* QEMU is about to run the VM: from now on nobody else writes into its memory. */
static void revoke_before_running(void *opaque, bool running, RunState state)
{
    QIOChannelVmferry *rioc = opaque;
    g_autoptr(GError) error = NULL;

    if (running && !vmf_session_revoke(rioc->session, &error)) {
        incoming_failed(error->message);
    }
}

static void incoming_connected(void *opaque)
{
    Incoming *in = opaque;
    g_autoptr(GError) error = NULL;
    QIOChannelVmferry *rioc =
        channel_new(in->session, in->list.blocks, false, in->return_path, &error);
    QEMUFile *f;

    if (rioc) {
        rioc->discards = in->discards;
        in->discards = false;
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
                    "the source is no QEMU with vmferry of this version (0x%08x, flags 0x%x)",
                    magic, flags);
        vmf_session_fail(in->session, g_error_copy(*error));
        return false;
    }
    in->return_path = flags & VMF_QEMU_RETURN_PATH;
    return true;
}

/* Waits for the source; one that fails before the migration begins leaves the listener as it was.
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
            discards_release(&in->discards);
            return NULL;
        }
        error_report("vmferry: a source failed to set a migration up (still listening): %s",
                     error->message);
    }
}

void destination_start(const VmfUri *uri, Error **errp)
{
    g_autoptr(GError) error = NULL;
    Incoming *in;
    BlockList list = {0};

    if (!block_list_fill(&list, errp)) {
        return;
    }
    in = g_new0(Incoming, 1);
    in->list = list;
    discards_reserve(&in->discards, in->list.ram);
    in->listener = vmf_listener_new(uri, &error);
    if (!in->listener) {
        error_setg(errp, "vmferry: %s", error->message);
        incoming_free(in);
        return;
    }
    g_thread_unref(g_thread_new("vmferry-accept", incoming_accept, in));
}
