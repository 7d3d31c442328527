/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QIOChannel. */

#include "glue.h"

#include "compat.h"

#include "io/channel-watch.h"
#include "qemu/module.h"

/*
 * Stream bytes that may wait for more bytes between slices of a round: ends and headers of
 * sections.
 */
#define LAZY_BYTES 128

ssize_t channel_put(VmfFile *file, const struct iovec *iov, size_t niov, bool may_wait,
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

static ssize_t vmferry_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, int *fds,
                              size_t nfds, int flags, Error **errp)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    return rioc->side->write(rioc, iov, niov, errp);
}

static ssize_t vmferry_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                             size_t *nfds COMPAT_READV_FLAGS, Error **errp)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    /* QEMUFile always asks for one piece. */
    return rioc->side->read(rioc, iov[0].iov_base, iov[0].iov_len, errp);
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

/* Writing always blocks, so nobody watches for room. */
static void vmferry_set_aio_fd_handler(QIOChannel *ioc, COMPAT_AIO_CONTEXTS, IOHandler *io_write,
                                       void *opaque)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(ioc);

    if (rioc->watched_fd >= 0) {
        compat_watch_fd(ctx, rioc->watched_fd, NULL, NULL);
        rioc->watched_fd = -1;
    }
    if (io_read) {
        rioc->watched_fd = readable_fd(rioc);
        compat_watch_fd(ctx, rioc->watched_fd, io_read, opaque);
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
    return 0; /* the stream and the return path share this channel; the session ends with the last
                 of them */
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
    if (rioc->outgoing) {
        unregister_savevm(NULL, TYPE_QIO_CHANNEL_VMFERRY, rioc);
    }
    if (rioc->vm_change) {
        qemu_del_vm_change_state_handler(rioc->vm_change);
    }
    discards_release(&rioc->discards); /* RAM is complete, or not needed */
    if (rioc->session) {
        session_end(rioc->session, rioc->back,
                    rioc->outgoing && completed && (!rioc->return_path || rioc->stock)
                        ? END_BY_HANDING_OVER
                    : !rioc->outgoing && rioc->return_path ? END_AFTER_THE_PEER
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

QIOChannelVmferry *channel_new(VmfSession *session, GArray *blocks, const ChannelSide *side,
                               bool return_path, GError **error)
{
    QIOChannelVmferry *rioc = QIO_CHANNEL_VMFERRY(object_new(TYPE_QIO_CHANNEL_VMFERRY));

    rioc->session = session;
    rioc->blocks = g_array_ref(blocks);
    rioc->side = side;
    rioc->outgoing = side->outgoing;
    rioc->return_path = return_path;
    rioc->stock = vmf_session_peer_is_qemu(session);
    rioc->file = vmf_session_get_file(session);
    if (!rioc->stock || return_path) {
        rioc->back = vmf_file_get_return_path(rioc->file, error);
        if (!rioc->back) {
            object_unref(OBJECT(rioc));
            return NULL;
        }
    }
    if (side->outgoing) {
        register_savevm_live(TYPE_QIO_CHANNEL_VMFERRY, 0, 1, &interface_remaining, rioc);
    }
    return rioc;
}
