/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source: RAM, the stream and its end, connecting. */

#include "glue.h"

#include "compat.h"

#include "qemu/timer.h"

/* A QEMUFile flushes by itself at so many bytes, or pieces. */
#define QEMU_BUFFER_BYTES 32768
#define QEMU_BUFFER_PIECES 64
/* What QEMU calls RAM_SAVE_FLAG_HOOK. */
#define RAM_HOOK 0x80
/* How often a migration that still connects checks whether it was cancelled. */
#define CONNECT_WATCH_MS 100
/* Pages between two refunds of zero pages. */
#define REFUND_PAGES 256
/* The most zero pages that are set against later pages in the rate limit. */
#define ZERO_CREDIT_PAGES 2048

/* --- RAM --- */

/* Makes the error that QEMU shows (a cancelled migration has none), and that of its file. */
static Error *write_failed(QIOChannelVmferry *rioc, const GError *error)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;

    rioc->write_failed = true;
    error_setg(&err, "vmferry: %s", error->message);
    if (s->state != MIGRATION_STATUS_CANCELLING) {
        migrate_set_error(s, err);
    }
    return err;
}

static int source_failed(QIOChannelVmferry *rioc, QEMUFile *f, GError *error)
{
    qemu_file_set_error_obj(f, -EIO, write_failed(rioc, error));
    g_error_free(error);
    return -EIO;
}

/*
 * Zero pages cost next to nothing, but the channels find them after QEMU has accounted them. A
 * refund is at most what was accounted since the last one: QEMU takes differences of the total as
 * bandwidth, which must stay positive. The rate limit hears of zero pages late, so that a burst
 * passes. It is bounded, and ends with the round.
 */
static void refund_zero_pages(QIOChannelVmferry *rioc, QEMUFile *f, bool last)
{
    VmfStats stats = {.size = sizeof(stats)};
    uint64_t zero, pages, limited;

    vmf_session_get_stats(rioc->session, &stats);
    zero = stats.zero_bytes / qemu_target_page_size();
    rioc->zero_credit = MIN(rioc->zero_credit + zero - rioc->zero_seen, ZERO_CREDIT_PAGES);
    rioc->zero_seen = zero;
    if (rioc->round != interface_rounds()) {
        rioc->round = interface_rounds();
        rioc->zero_credit = 0;
    }
    limited = MIN(rioc->zero_credit, rioc->pages);
    pages = zero - rioc->zero_refunded;
    pages = last ? pages : MIN(pages, rioc->pages);
    if (pages) {
        interface_refund(f, pages, limited);
    }
    rioc->zero_credit -= limited;
    rioc->zero_refunded += pages;
    rioc->pages = 0;
}

int source_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset, size_t size)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f));
    const VmfRamBlock *ram = block_find(rioc, block_offset);
    GError *error = NULL;

    if (!ram) {
        error = g_error_new(VMF_ERROR, VMF_ERROR_INVALID,
                            "a RAM block was added while the VM was migrated");
    } else if (!vmf_save_ram_page(rioc->file, ram, offset, size)) {
        vmf_file_check(rioc->file, &error);
    }
    if (error) {
        return source_failed(rioc, f, error);
    }
    rioc->iterating = true;
    if (rioc->pages >= REFUND_PAGES) {
        refund_zero_pages(rioc, f, false);
    }
    rioc->pages++; /* QEMU, or calls.c, accounts for it after this */
    return 0;
}

/*
 * Whether QEMU may stop the VM soon because the rest fits into its downtime limit, although RAM
 * under way does not.
 */
static bool must_drain(QIOChannelVmferry *rioc)
{
    const uint64_t limit = MAX((int64_t)migrate_get_current()->threshold_size, 0);
    const uint64_t remaining = ram_bytes_remaining();
    VmfStats stats = {.size = sizeof(stats)};

    if (remaining > limit || !runstate_is_running()) { /* a stopped VM must not wait */
        return false;
    }
    vmf_session_get_stats(rioc->session, &stats);
    return remaining == 0 || remaining + stats.max_inflight + stats.queue_max > limit;
}

int source_before_ram(QEMUFile *f)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f));
    GError *error = NULL;

    if (!rioc->stock) {
        return 0;
    }
    qemu_put_be64(f, RAM_HOOK);
    qemu_fflush(f);
    return vmf_file_flush(rioc->file, &error) ? 0 : source_failed(rioc, f, error);
}

/*
 * QEMU calls this after every slice of a round. If each slice waited, the wire would be empty in
 * between.
 */
int source_after_ram(QEMUFile *f, uint64_t flags)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f));
    bool last = flags == RAM_CONTROL_FINISH;
    VmfFlush how = VMF_FLUSH_START;
    GError *error = NULL;

    if (flags == RAM_CONTROL_SETUP) {
        return 0;
    }
    if (last) {
        how = VMF_FLUSH_FINAL;
    } else if (must_drain(rioc)) {
        how = VMF_FLUSH_ROUND;
    }
    if (!vmf_flush_ram_pages(rioc->file, how)) {
        vmf_file_check(rioc->file, &error);
        return source_failed(rioc, f, error);
    }
    refund_zero_pages(rioc, f, last);
    rioc->last_stage |= last;
    return 0;
}

/* --- the stream --- */

/*
 * Without a return path QEMU reports "completed" when its last flush returns. This process may be
 * killed at once then. So all that QEMU flushes after the VM has stopped must have left it. A full
 * buffer is not QEMU's own flush. The first flush after the last RAM ends RAM's section, and is not
 * the last.
 */
static bool settle_if_last(QIOChannelVmferry *rioc, ssize_t size, size_t niov, GError **error)
{
    if (!rioc->last_stage || rioc->return_path) {
        return true;
    }
    if (!rioc->ram_section_ended) {
        rioc->ram_section_ended = true;
        return true;
    }
    return size >= QEMU_BUFFER_BYTES || niov >= QEMU_BUFFER_PIECES ||
           vmf_session_settle(rioc->session, error);
}

static ssize_t write_stream(QIOChannelVmferry *rioc, const struct iovec *iov, size_t niov,
                            Error **errp)
{
    g_autoptr(GError) error = NULL;
    ssize_t done = channel_put(rioc->file, iov, niov, rioc->iterating && !rioc->last_stage, &error);

    if (done < 0 || !settle_if_last(rioc, done, niov, &error)) {
        done = -1;
        error_propagate(errp, write_failed(rioc, error));
    }
    return done;
}

/*
 * The return path is lost. If everything was sent before, the destination may run the VM, so this
 * side must not. The lock waits until the migration thread has sent what it is sending.
 */
static void return_path_lost(QIOChannelVmferry *rioc, const char *why)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;

    compat_lock();
    if (rioc->last_stage && !rioc->write_failed) {
        compat_keep_stopped(s);
        error_setg(&err,
                   "vmferry: the connection was lost when the destination had everything: "
                   "outcome unknown. The VM stays stopped here. Look whether the destination "
                   "runs it; only if it does not and never will, \"cont\" runs it on here (%s)",
                   why);
    } else {
        error_setg(&err, "vmferry: %s", why);
    }
    if (s->state != MIGRATION_STATUS_CANCELLING || compat_kept_stopped(s)) {
        migrate_set_error(s, err);
    }
    error_free(err);
    compat_unlock();
}

static ssize_t read_back(QIOChannelVmferry *rioc, uint8_t *to, size_t size, Error **errp)
{
    g_autoptr(GError) error = NULL;
    size_t n = reading_take(rioc->back, to, size);

    if (n) {
        return n;
    }
    if (vmf_file_check(rioc->back, &error)) {
        g_set_error(&error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the destination hung up");
    }
    return_path_lost(rioc, error->message);
    error_setg(errp, "vmferry: %s", error->message);
    return -1;
}

static const ChannelSide source_side = {
    .outgoing = true,
    .write = write_stream,
    .read = read_back,
};

/* --- connecting --- */

typedef struct Outgoing {
    VmfUri *uri;
    BlockList list;
    bool return_path;
    Discards discards; /* passed to the channel later */
    GCancellable *cancel;
    QEMUTimer *watch;
    VmfSession *session;
    GError *error;
} Outgoing;

static void outgoing_free(Outgoing *out)
{
    timer_free(out->watch);
    discards_release(&out->discards);
    vmf_uri_unref(out->uri);
    block_list_clear(&out->list);
    g_object_unref(out->cancel);
    g_clear_error(&out->error);
    g_free(out);
}

static void watch_for_cancel(void *opaque)
{
    Outgoing *out = opaque;

    if (migrate_get_current()->state != MIGRATION_STATUS_SETUP) {
        g_cancellable_cancel(out->cancel);
    } else {
        timer_mod(out->watch, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + CONNECT_WATCH_MS);
    }
}

static void outgoing_connected(void *opaque)
{
    Outgoing *out = opaque;
    MigrationState *s = migrate_get_current();
    QIOChannelVmferry *rioc = NULL;

    if (out->session && s->state != MIGRATION_STATUS_SETUP) {
        session_end(g_steal_pointer(&out->session), NULL, END_NOW);
        g_set_error(&out->error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
    }
    if (out->session) {
        rioc = channel_new(out->session, out->list.blocks, &source_side, out->return_path,
                           &out->error);
    }
    if (rioc) {
        rioc->discards = out->discards;
        out->discards = DISCARDS_FREE;
        s->to_dst_file = qemu_file_new_output(QIO_CHANNEL(rioc));
        interface_connected(rioc, s->to_dst_file);
        object_unref(OBJECT(rioc));
        compat_connect(s, NULL);
    } else {
        Error *err = NULL;

        error_setg(&err, "vmferry: %s", out->error->message);
        compat_connect(s, err);
        error_free(err);
    }
    outgoing_free(out);
}

static bool greet(const Outgoing *out, GError **error)
{
    VmfFile *file = vmf_session_get_file(out->session);

    if (vmf_session_peer_is_qemu(out->session)) {
        return !out->return_path || vmf_session_open_return_path(out->session, error);
    }
    vmf_put_be32(file, VMF_QEMU_GREETING);
    vmf_put_be32(file, out->return_path ? VMF_QEMU_RETURN_PATH : 0);
    return vmf_file_flush(file, error);
}

static void *outgoing_connect(void *opaque)
{
    Outgoing *out = opaque;

    out->session = vmf_session_connect(out->uri, out->list.ram, out->cancel, &out->error);
    if (out->session && !greet(out, &out->error)) {
        g_clear_pointer(&out->session, vmf_session_free);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), outgoing_connected, out);
    return NULL;
}

void source_start(MigrationState *s, VmfUri *uri, Error **errp)
{
    g_autoptr(GError) error = NULL;
    Outgoing *out = g_new0(Outgoing, 1);

    out->uri = uri;
    out->return_path = compat_return_path();
    out->cancel = g_cancellable_new();
    out->watch = timer_new_ms(QEMU_CLOCK_REALTIME, watch_for_cancel, out);
    if (!discards_forbid(&out->discards, errp) || !block_list_fill(&out->list, errp)) {
        outgoing_free(out);
        return;
    }
    timer_mod(out->watch, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + CONNECT_WATCH_MS);
    if (!glue_thread("vmferry-connect", outgoing_connect, out, &error)) {
        error_setg(errp, "vmferry: %s", error->message);
        outgoing_free(out);
    }
}
