/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's rdma: migration by vmferry
 *
 * Takes the place of migration/rdma.c (QEMU 7.2): a QIOChannel for the stream
 * and the RAM hooks, over a session of libvmferry. QEMU keeps the dirty log,
 * convergence and device state.
 *
 * Who owns the VM. Without the return-path capability the destination holds
 * back the newest byte of the stream until another follows, or, at the end,
 * until the source has said GO; the source says it when its migration state has
 * become "completed", after which it never runs the VM again by itself. With
 * return-path QEMU's destination runs the VM when everything is loaded and the
 * source waits for its SHUT message; if the connection is lost while the
 * destination may have everything, the source leaves the VM stopped.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "block/aio.h"
#include "exec/address-spaces.h"
#include "exec/cpu-common.h"
#include "exec/memory.h"
#include "exec/target_page.h"
#include "hw/core/cpu.h"
#include "io/channel.h"
#include "io/channel-watch.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "sysemu/tcg.h"
#include "migration.h"
#include "qemu-file.h"
#include "ram.h"
#include "rdma.h"
#include <vmferry/vmferry.h>

/* What the source puts before QEMU's stream: this, then GREETING_* flags, as be32s. */
#define GREETING 0x514d5531u /* "QMU1" */
#define GREETING_RETURN_PATH 1u

/* A QEMUFile flushes by itself when that many bytes, or pieces, have gathered. */
#define QEMU_BUFFER_BYTES 32768
#define QEMU_BUFFER_PIECES 64
/* Stream bytes that may wait for company between slices of a round: section headers and ends. */
#define LAZY_BYTES 128
/* RAM that may wait for its channel besides what is in flight. */
#define QUEUED_BYTES (32u << 20)
/* How often a migration that is still connecting looks whether it was cancelled. */
#define CONNECT_WATCH_MS 100
/* Pages between two corrections of the account for those that were found zero. */
#define ACCOUNT_PAGES 256
/* How long a destination that runs already waits for the source to hang up. */
#define HANG_UP_MS 10000

#define TYPE_QIO_CHANNEL_VMFERRY "qio-channel-vmferry"
OBJECT_DECLARE_SIMPLE_TYPE(QIOChannelVmferry, QIO_CHANNEL_VMFERRY)

/* Where QEMU has a RAM block, and what vmferry calls it. */
typedef struct Block {
    ram_addr_t start;
    const VmfRamBlock *ram;
} Block;

typedef enum { HAND_OVER_NOT_YET, HAND_OVER_RUNS, HAND_OVER_OWNER, HAND_OVER_FAILED } HandOver;

struct QIOChannelVmferry {
    QIOChannel parent;
    VmfSession *session;
    VmfFile *file; /* owned by the session */
    VmfFile *back; /* the return path: read by the source, written by the destination */
    GArray *blocks;
    bool outgoing, return_path;

    /* Source. */
    const Block *block; /* the last one used */
    unsigned pages;     /* since the last correction */
    bool iterating;     /* RAM was saved */
    uint64_t zero_bytes;
    bool last_stage; /* the VM is stopped and its RAM is flushed */
    bool write_failed;
    MemoryListener dirty_log;

    /* Destination. */
    uint8_t held; /* the newest byte */
    bool holds;
    HandOver hand_over; /* written by its thread before `handed_over' is set */
    EventNotifier handed_over;
    GError *hand_over_error;
    int watched_fd;
    VMChangeStateEntry *vm_change;
};

/* --- threads that end sessions; the process waits for them before it ends --- */

static struct {
    GMutex lock;
    GCond changed;
    unsigned running;
    Notifier exit;
} enders;

static void enders_await(Notifier *notifier, void *data)
{
    g_mutex_lock(&enders.lock);
    while (enders.running) {
        g_cond_wait(&enders.changed, &enders.lock);
    }
    g_mutex_unlock(&enders.lock);
}

typedef struct Ender {
    VmfSession *session;
    VmfFile *back;
    enum { END_NOW, END_BY_HANDING_OVER, END_AFTER_THE_PEER } how;
} Ender;

static void hand_over_to_destination(VmfSession *session)
{
    g_autoptr(GError) error = NULL;

    if (vmf_session_complete(session, &error)) {
        return;
    }
    if (g_error_matches(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME)) {
        error_report("vmferry: %s", error->message);
    } else {
        error_report("vmferry: the destination was lost before it took the VM over, and does "
                     "not run it; it is stopped here (\"cont\" runs it on): %s",
                     error->message);
    }
}

static void await_hang_up(VmfSession *session)
{
    for (int waited = 0; waited < HANG_UP_MS && vmf_session_check(session, NULL); waited += 10) {
        g_usleep(10 * 1000);
    }
}

static void *ender_main(void *opaque)
{
    g_autofree Ender *ender = opaque;

    if (ender->how == END_BY_HANDING_OVER) {
        hand_over_to_destination(ender->session);
    } else if (ender->how == END_AFTER_THE_PEER) {
        await_hang_up(ender->session);
    }
    vmf_file_free(ender->back);
    vmf_session_free(ender->session);
    g_mutex_lock(&enders.lock);
    enders.running--;
    g_cond_broadcast(&enders.changed);
    g_mutex_unlock(&enders.lock);
    return NULL;
}

/* Takes the session and its return path. Ending one may take long, so not in QEMU's main loop. */
static void end_session(VmfSession *session, VmfFile *back, int how)
{
    Ender *ender = g_new0(Ender, 1);

    ender->session = session;
    ender->back = back;
    ender->how = how;
    if (!enders.exit.notify) { /* only the main thread comes here */
        enders.exit.notify = enders_await;
        qemu_add_exit_notifier(&enders.exit);
    }
    g_mutex_lock(&enders.lock);
    enders.running++;
    g_mutex_unlock(&enders.lock);
    g_thread_unref(g_thread_new("vmferry-end", ender_main, ender));
}

/* --- RAM blocks --- */

typedef struct BlockList {
    VmfRamBlocks *ram;
    GArray *blocks;
    GError *error;
} BlockList;

static int add_block(RAMBlock *rb, void *opaque)
{
    BlockList *list = opaque;
    /* What may grow (firmware tables) is mapped, and the same on both sides, up to its maximum. */
    uint64_t length = qemu_ram_get_max_length(rb);
    uint32_t page_size = qemu_target_page_size();
    const char *name = qemu_ram_get_idstr(rb);
    void *host = qemu_ram_get_host_addr(rb);
    Block block = {.start = qemu_ram_get_offset(rb)};

    if (qemu_ram_is_shared(rb) && qemu_ram_get_fd(rb) >= 0) {
        block.ram = vmf_ram_blocks_add_shared(list->ram, name, host, length, page_size,
                                              qemu_ram_get_fd(rb), 0, &list->error);
    } else {
        block.ram = vmf_ram_blocks_add(list->ram, name, host, length, page_size, &list->error);
    }
    g_array_append_val(list->blocks, block);
    return block.ram ? 0 : -EINVAL;
}

static bool list_blocks(BlockList *list, Error **errp)
{
    list->ram = vmf_ram_blocks_new();
    list->blocks = g_array_new(false, false, sizeof(Block));
    if (foreach_not_ignored_block(add_block, list) == 0) {
        return true;
    }
    error_setg(errp, "vmferry: %s", list->error->message);
    g_clear_error(&list->error);
    vmf_ram_blocks_unref(list->ram);
    g_array_unref(list->blocks);
    return false;
}

static const VmfRamBlock *find_block(QIOChannelVmferry *rioc, ram_addr_t start)
{
    if (rioc->block && rioc->block->start == start) {
        return rioc->block->ram;
    }
    for (guint i = 0; i < rioc->blocks->len; i++) {
        rioc->block = &g_array_index(rioc->blocks, Block, i);
        if (rioc->block->start == start) {
            return rioc->block->ram;
        }
    }
    rioc->block = NULL;
    return NULL;
}

/* --- the dirty log of emulated CPUs --- */

static void flush_tlb(CPUState *cpu, run_on_cpu_data data)
{
    tcg_flush_softmmu_tlb(cpu);
}

/*
 * QEMU before 9.0 takes the dirty bits of RAM blocks without telling TCG, whose
 * CPUs go on writing through TLB entries that mark nothing dirty: such writes
 * are lost. Flushed after the bits are taken and before any page is read, every
 * later write is seen. KVM needs none of this.
 */
static void after_dirty_sync(MemoryListener *listener)
{
    CPUState *cpu;

    CPU_FOREACH (cpu) {
        run_on_cpu(cpu, flush_tlb, RUN_ON_CPU_NULL);
    }
}

static void watch_dirty_log(QIOChannelVmferry *rioc)
{
    if (tcg_enabled()) {
        rioc->dirty_log = (MemoryListener){
            .name = "vmferry",
            .log_global_after_sync = after_dirty_sync,
        };
        memory_listener_register(&rioc->dirty_log, &address_space_memory);
    }
}

/* --- the hooks of the source --- */

static int source_failed(QIOChannelVmferry *rioc, QEMUFile *f, GError *error)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;

    rioc->write_failed = true;
    error_setg(&err, "vmferry: %s", error->message);
    if (s->state != MIGRATION_STATUS_CANCELLING) {
        migrate_set_error(s, err);
    }
    qemu_file_set_error_obj(f, -EIO, err);
    g_error_free(error);
    return -EIO;
}

/*
 * A page is accounted in full when it is saved; which ones are zero and cost
 * nothing is found out behind it.
 */
static void account_zero_pages(QIOChannelVmferry *rioc, QEMUFile *f)
{
    const uint64_t page_size = qemu_target_page_size();
    VmfStats stats = {.size = sizeof(stats)};
    uint64_t pages;

    rioc->pages = 0;
    vmf_session_get_stats(rioc->session, &stats);
    pages = (stats.zero_bytes - rioc->zero_bytes) / page_size;
    pages = MIN(pages, (uint64_t)ram_counters.normal);
    if (pages) {
        rioc->zero_bytes += pages * page_size;
        ram_counters.normal -= pages;
        ram_counters.duplicate += pages;
        ram_counters.transferred -= pages * page_size;
        ram_counters.precopy_bytes -= MIN(pages * page_size, ram_counters.precopy_bytes);
        qemu_file_credit_transfer(f, -(pages * page_size));
        qemu_file_acct_rate_limit(f, -(int64_t)(pages * page_size));
    }
}

static size_t vmferry_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset,
                                size_t size, uint64_t *bytes_sent)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f));
    const VmfRamBlock *ram = find_block(rioc, block_offset);
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
    if (++rioc->pages >= ACCOUNT_PAGES) {
        account_zero_pages(rioc, f);
    }
    *bytes_sent = size;
    return 0;
}

/*
 * Whether QEMU may stop the VM soon, believing that what remains fits into its
 * downtime limit, although with what is still under way it would not.
 */
static bool must_drain(QIOChannelVmferry *rioc)
{
    const uint64_t limit = MAX(migrate_get_current()->threshold_size, 0);
    const uint64_t remaining = ram_bytes_remaining();
    VmfStats stats = {.size = sizeof(stats)};

    if (remaining > limit) {
        return false;
    }
    vmf_session_get_stats(rioc->session, &stats);
    return remaining == 0 || remaining + stats.max_inflight + QUEUED_BYTES > limit;
}

/*
 * QEMU calls this after every slice of a round. Draining each would leave the
 * wire empty in between.
 */
static int vmferry_after_ram(QEMUFile *f, uint64_t flags, void *data)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f));
    bool last = flags == RAM_CONTROL_FINISH;
    GError *error = NULL;

    if (flags == RAM_CONTROL_SETUP) {
        return 0;
    }
    if (last || must_drain(rioc)) {
        if (!vmf_flush_ram_pages(rioc->file, last ? VMF_FLUSH_FINAL : VMF_FLUSH_ROUND)) {
            vmf_file_check(rioc->file, &error);
            return source_failed(rioc, f, error);
        }
    }
    account_zero_pages(rioc, f);
    rioc->last_stage |= last;
    return 0;
}

static const QEMUFileHooks source_hooks = {
    .after_ram_iterate = vmferry_after_ram,
    .save_page = vmferry_save_page,
};

/* --- the stream --- */

/* Copies what is there, waiting for the first byte if the file blocks; 0 when there is nothing. */
static size_t take(VmfFile *file, uint8_t *to, size_t size)
{
    const uint8_t *data;

    if (!vmf_file_buffered(file) && !vmf_peek_buffer(file, &data, 1, 0)) {
        return 0;
    }
    return vmf_get_buffer(file, to, MIN(size, vmf_file_buffered(file)));
}

/*
 * `may_wait': a few bytes stay in the buffer, for every flush is a fence behind
 * the RAM before it, on every channel; QEMU flushes a section end many times a
 * second.
 */
static ssize_t write_stream(VmfFile *file, const struct iovec *iov, size_t niov, bool may_wait,
                            GError **error)
{
    ssize_t done = 0;

    for (size_t i = 0; i < niov; i++) {
        vmf_put_buffer(file, iov[i].iov_base, iov[i].iov_len);
        done += iov[i].iov_len;
    }
    if (may_wait && done <= LAZY_BYTES) {
        return vmf_file_check(file, error) ? done : -1;
    }
    return vmf_file_flush(file, error) ? done : -1;
}

/*
 * Without a return path QEMU reports "completed" when its last flush returns.
 * What it flushes with the VM stopped must by then have left this process,
 * which may be killed at once. A full buffer is no flush of QEMU's own will.
 */
static bool settle_if_last(QIOChannelVmferry *rioc, ssize_t size, size_t niov, GError **error)
{
    return !rioc->outgoing || !rioc->last_stage || rioc->return_path || size >= QEMU_BUFFER_BYTES ||
           niov >= QEMU_BUFFER_PIECES || vmf_session_settle(rioc->session, error);
}

static ssize_t vmferry_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, int *fds,
                              size_t nfds, int flags, Error **errp)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);
    MigrationState *s = migrate_get_current();
    g_autoptr(GError) error = NULL;
    ssize_t done = write_stream(rioc->outgoing ? rioc->file : rioc->back, iov, niov,
                                rioc->iterating && !rioc->last_stage, &error);

    if (done < 0 || !settle_if_last(rioc, done, niov, &error)) {
        Error *err = NULL;

        done = -1;
        rioc->write_failed = true;
        error_setg(&err, "vmferry: %s", error->message);
        if (rioc->outgoing && s->state != MIGRATION_STATUS_CANCELLING) {
            migrate_set_error(s, err);
        }
        error_propagate(errp, err);
    }
    return done;
}

/*
 * The return path broke. Was everything sent when it did, then the destination
 * may run the VM: it must not run here as well. The lock waits for the
 * migration thread to be through with what it is sending.
 */
static void return_path_lost(QIOChannelVmferry *rioc, const char *why)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;

    qemu_mutex_lock_iothread();
    if (rioc->last_stage && !rioc->write_failed) {
        s->vm_was_running = false;
        error_setg(&err,
                   "vmferry: the connection was lost when the destination had everything: "
                   "outcome unknown. The VM stays stopped here. Look whether the destination "
                   "runs it; only if it does not and never will, \"cont\" runs it on here (%s)",
                   why);
    } else {
        error_setg(&err, "vmferry: %s", why);
    }
    if (s->state != MIGRATION_STATUS_CANCELLING || !s->vm_was_running) {
        migrate_set_error(s, err);
    }
    error_free(err);
    qemu_mutex_unlock_iothread();
}

static ssize_t read_return_path(QIOChannelVmferry *rioc, uint8_t *to, size_t size, Error **errp)
{
    g_autoptr(GError) error = NULL;
    size_t n = take(rioc->back, to, size);

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

/* --- the destination's reader --- */

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
        rioc->holds = take(rioc->file, &rioc->held, 1);
    }
    if (rioc->holds) {
        n = take(rioc->file, to + 1, size - 1);
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

static ssize_t read_incoming(QIOChannelVmferry *rioc, uint8_t *to, size_t size)
{
    g_autoptr(GError) error = NULL;
    ssize_t n = 0;

    if (!rioc->return_path && size > 1) {
        n = read_holding_back(rioc, to, size);
    } else {
        n = take(rioc->file, to, size);
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

static ssize_t vmferry_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                             size_t *nfds, Error **errp)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    /* QEMUFile always asks for one piece. */
    return rioc->outgoing ? read_return_path(rioc, iov[0].iov_base, iov[0].iov_len, errp)
                          : read_incoming(rioc, iov[0].iov_base, iov[0].iov_len);
}

static int vmferry_set_blocking(QIOChannel *ioc, bool blocking, Error **errp)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    if (!rioc->outgoing) {
        vmf_file_set_blocking(rioc->file, blocking);
    }
    return 0;
}

static int readable_fd(QIOChannelVmferry *rioc)
{
    return rioc->hand_over == HAND_OVER_NOT_YET ? vmf_file_get_fd(rioc->file)
                                                : event_notifier_get_fd(&rioc->handed_over);
}

static void vmferry_set_aio_fd_handler(QIOChannel *ioc, AioContext *ctx, IOHandler *io_read,
                                       IOHandler *io_write, void *opaque)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    if (rioc->watched_fd >= 0) {
        aio_set_fd_handler(ctx, rioc->watched_fd, false, NULL, NULL, NULL, NULL, NULL);
        rioc->watched_fd = -1;
    }
    if (io_read) {
        rioc->watched_fd = readable_fd(rioc);
        aio_set_fd_handler(ctx, rioc->watched_fd, false, io_read, NULL, NULL, NULL, opaque);
    }
}

static GSource *vmferry_create_watch(QIOChannel *ioc, GIOCondition condition)
{
    return qio_channel_create_fd_watch(ioc, readable_fd(QIO_CHANNEL_VMFERRY(ioc)), condition);
}

static int vmferry_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp)
{
    vmf_session_cancel(QIO_CHANNEL_VMFERRY(ioc)->session);
    return 0;
}

static int vmferry_close(QIOChannel *ioc, Error **errp)
{
    return 0; /* the stream and the return path share this; the last one to go ends the session */
}

static void vmferry_init(Object *obj)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(obj);

    rioc->watched_fd = -1;
    event_notifier_init(&rioc->handed_over, false);
    qio_channel_set_feature(QIO_CHANNEL(obj), QIO_CHANNEL_FEATURE_SHUTDOWN);
}

static void vmferry_finalize(Object *obj)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(obj);
    bool completed = migrate_get_current()->state == MIGRATION_STATUS_COMPLETED;

    if (rioc->dirty_log.name) {
        memory_listener_unregister(&rioc->dirty_log);
    }
    if (rioc->vm_change) {
        qemu_del_vm_change_state_handler(rioc->vm_change);
    }
    if (rioc->session) {
        end_session(rioc->session, rioc->back,
                    rioc->outgoing && completed && !rioc->return_path ? END_BY_HANDING_OVER
                    : !rioc->outgoing && rioc->return_path            ? END_AFTER_THE_PEER
                                                                      : END_NOW);
    }
    event_notifier_cleanup(&rioc->handed_over);
    g_clear_error(&rioc->hand_over_error);
    g_clear_pointer(&rioc->blocks, g_array_unref);
}

static void vmferry_class_init(ObjectClass *klass, void *class_data G_GNUC_UNUSED)
{
    QIOChannelClass *ioc_klass = QIO_CHANNEL_CLASS(klass);

    ioc_klass->io_writev = vmferry_writev;
    ioc_klass->io_readv = vmferry_readv;
    ioc_klass->io_set_blocking = vmferry_set_blocking;
    ioc_klass->io_close = vmferry_close;
    ioc_klass->io_shutdown = vmferry_shutdown;
    ioc_klass->io_create_watch = vmferry_create_watch;
    ioc_klass->io_set_aio_fd_handler = vmferry_set_aio_fd_handler;
}

static const TypeInfo vmferry_info = {
    .parent = TYPE_QIO_CHANNEL,
    .name = TYPE_QIO_CHANNEL_VMFERRY,
    .instance_size = sizeof(QIOChannelVmferry),
    .instance_init = vmferry_init,
    .instance_finalize = vmferry_finalize,
    .class_init = vmferry_class_init,
};

static void vmferry_register_types(void)
{
    type_register_static(&vmferry_info);
}

type_init(vmferry_register_types);

/* Takes the session; NULL without a return path. */
static QIOChannelVmferry *channel_new(VmfSession *session, GArray *blocks, bool outgoing,
                                      bool return_path, GError **error)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(object_new(TYPE_QIO_CHANNEL_VMFERRY));

    rioc->session = session;
    rioc->blocks = g_array_ref(blocks);
    rioc->outgoing = outgoing;
    rioc->return_path = return_path;
    rioc->file = vmf_session_get_file(session);
    rioc->back = vmf_file_get_return_path(rioc->file, error);
    if (!rioc->back) {
        object_unref(OBJECT(rioc));
        return NULL;
    }
    return rioc;
}

/* --- starting --- */

/* HOST:PORT with vmferry's options behind it, as after "rdma:"; more from the environment. */
static VmfUri *parse_uri(const char *host_port, Error **errp)
{
    const char *options = getenv("VMFERRY_QEMU_OPTIONS");
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    VmfUri *uri;

    strstart(host_port, "//", &host_port); /* as libvirt spells it */
    text = g_strconcat("rdma:", host_port, options && *options ? "," : "", options, NULL);
    uri = vmf_uri_parse(text, &error);
    if (!uri) {
        error_setg(errp, "vmferry: %s", error->message);
    }
    return uri;
}

static bool can_migrate(Error **errp)
{
    if (ram_block_discard_is_required()) {
        error_setg(errp, "vmferry: RAM discard is in use and cannot be disabled");
        return false;
    }
    if (migrate_postcopy()) {
        error_setg(errp, "vmferry: rdma: does not do postcopy; switch the postcopy-ram and "
                         "dirty-bitmaps capabilities off");
        return false;
    }
    return true;
}

/* --- the destination --- */

typedef struct Incoming {
    VmfListener *listener;
    BlockList list;
    VmfSession *session;
    bool return_path;
} Incoming;

static void incoming_free(Incoming *in)
{
    vmf_listener_free(in->listener);
    vmf_ram_blocks_unref(in->list.ram);
    g_array_unref(in->list.blocks);
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
    Error *err = NULL;
    QIOChannelVmferry *rioc =
        channel_new(in->session, in->list.blocks, false, in->return_path, &error);
    QEMUFile *f;

    incoming_free(in);
    if (!rioc) {
        incoming_failed(error->message);
    }
    if (rioc->return_path) {
        rioc->vm_change = qemu_add_vm_change_state_handler(revoke_before_running, rioc);
    }
    f = qemu_file_new_input(QIO_CHANNEL(rioc));
    object_unref(OBJECT(rioc));
    migration_fd_process_incoming(f, &err);
    if (err) {
        error_report_err(err);
    }
}

static bool read_greeting(Incoming *in, GError **error)
{
    VmfFile *file = vmf_session_get_file(in->session);
    uint32_t magic = vmf_get_be32(file), flags = vmf_get_be32(file);

    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (magic != GREETING || flags & ~GREETING_RETURN_PATH) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the source is no QEMU with vmferry of this version (0x%08x, flags 0x%x)",
                    magic, flags);
        vmf_session_fail(in->session, g_error_copy(*error));
        return false;
    }
    in->return_path = flags & GREETING_RETURN_PATH;
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
            return NULL;
        }
        error_report("vmferry: a source failed to set a migration up (still listening): %s",
                     error->message);
    }
}

void rdma_start_incoming_migration(const char *host_port, Error **errp)
{
    g_autoptr(VmfUri) uri = NULL;
    g_autoptr(GError) error = NULL;
    Incoming *in;
    BlockList list = {0};

    if (!can_migrate(errp) || !(uri = parse_uri(host_port, errp)) || !list_blocks(&list, errp)) {
        return;
    }
    in = g_new0(Incoming, 1);
    in->list = list;
    in->listener = vmf_listener_new(uri, &error);
    if (!in->listener) {
        error_setg(errp, "vmferry: %s", error->message);
        incoming_free(in);
        return;
    }
    g_thread_unref(g_thread_new("vmferry-accept", incoming_accept, in));
}

/* --- the source --- */

typedef struct Outgoing {
    VmfUri *uri;
    BlockList list;
    bool return_path;
    GCancellable *cancel;
    QEMUTimer *watch;
    VmfSession *session;
    GError *error;
} Outgoing;

static void outgoing_free(Outgoing *out)
{
    timer_free(out->watch);
    vmf_uri_unref(out->uri);
    vmf_ram_blocks_unref(out->list.ram);
    g_array_unref(out->list.blocks);
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
        end_session(g_steal_pointer(&out->session), NULL, END_NOW);
        g_set_error(&out->error, VMF_ERROR, VMF_ERROR_CANCELLED, "cancelled");
    }
    if (out->session) {
        rioc = channel_new(out->session, out->list.blocks, true, out->return_path, &out->error);
    }
    if (rioc) {
        s->to_dst_file = qemu_file_new_output(QIO_CHANNEL(rioc));
        qemu_file_set_hooks(s->to_dst_file, &source_hooks);
        watch_dirty_log(rioc);
        object_unref(OBJECT(rioc));
        migrate_fd_connect(s, NULL);
    } else {
        Error *err = NULL;

        error_setg(&err, "vmferry: %s", out->error->message);
        migrate_fd_connect(s, err);
        error_free(err);
    }
    outgoing_free(out);
}

static void *outgoing_connect(void *opaque)
{
    Outgoing *out = opaque;
    VmfFile *file;

    out->session = vmf_session_connect(out->uri, out->list.ram, out->cancel, &out->error);
    if (out->session) {
        file = vmf_session_get_file(out->session);
        vmf_put_be32(file, GREETING);
        vmf_put_be32(file, out->return_path ? GREETING_RETURN_PATH : 0);
        if (!vmf_file_flush(file, &out->error)) {
            g_clear_pointer(&out->session, vmf_session_free);
        }
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), outgoing_connected, out);
    return NULL;
}

void rdma_start_outgoing_migration(void *opaque, const char *host_port, Error **errp)
{
    MigrationState *s = opaque;
    g_autoptr(VmfUri) uri = NULL;
    g_autoptr(GError) error = NULL;
    Outgoing *out;
    BlockList list = {0};

    if (!can_migrate(errp) || !(uri = parse_uri(host_port, errp))) {
        return;
    }
    if (s->enabled_capabilities[MIGRATION_CAPABILITY_RDMA_PIN_ALL] &&
        !vmf_uri_set(uri, "registration", "pin-all", &error)) {
        error_setg(errp, "vmferry: %s", error->message);
        return;
    }
    if (!list_blocks(&list, errp)) {
        return;
    }
    out = g_new0(Outgoing, 1);
    out->uri = g_steal_pointer(&uri);
    out->list = list;
    out->return_path = migrate_use_return_path();
    out->cancel = g_cancellable_new();
    out->watch = timer_new_ms(QEMU_CLOCK_REALTIME, watch_for_cancel, out);
    timer_mod(out->watch, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + CONNECT_WATCH_MS);
    g_thread_unref(g_thread_new("vmferry-connect", outgoing_connect, out));
}
