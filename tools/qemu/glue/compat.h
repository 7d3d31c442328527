/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names that changed between QEMU 7.2 and QEMU 10. */
#ifndef VMFERRY_COMPAT_H
#define VMFERRY_COMPAT_H

#include "block/aio.h"

#if __has_include("system/runstate.h") /* QEMU 10 */

#include "migration/options.h"
#include "system/runstate.h"
#include "system/system.h"

#define COMPAT_READV_FLAGS , int flags
#define COMPAT_AIO_CONTEXTS AioContext *ctx, IOHandler *io_read, AioContext *write_ctx
/* Where in its file a RAM block begins. */
#define COMPAT_FD_OFFSET(rb) ((rb)->fd_offset)

static inline void compat_lock(void)
{
    bql_lock();
}

static inline void compat_unlock(void)
{
    bql_unlock();
}

static inline bool compat_return_path(void)
{
    return migrate_return_path();
}

static inline bool compat_multifd(void)
{
    return migrate_multifd();
}

static inline bool compat_colo(void)
{
    return migrate_colo();
}

static inline bool compat_tls(void)
{
    return migrate_tls();
}

static inline bool compat_mapped_ram(void)
{
    return migrate_mapped_ram();
}

/* Whether RAM does not go over the network, or not all of it. */
static inline bool compat_other_mode(void)
{
    return migrate_mode() != MIG_MODE_NORMAL;
}

static inline bool compat_pin_all(MigrationState *s)
{
    return migrate_rdma_pin_all();
}

/* Keeps the VM stopped if the migration fails. */
static inline void compat_keep_stopped(MigrationState *s)
{
    s->vm_old_state = RUN_STATE_PAUSED;
}

static inline bool compat_kept_stopped(MigrationState *s)
{
    return !runstate_is_live(s->vm_old_state);
}

static inline void compat_connect(MigrationState *s, Error *err)
{
    migration_connect(s, err);
}

static inline void compat_process_incoming(QEMUFile *f)
{
    migration_fd_process_incoming(f);
}

static inline void compat_watch_fd(AioContext *ctx, int fd, IOHandler *io_read, void *opaque)
{
    aio_set_fd_handler(ctx, fd, io_read, NULL, NULL, NULL, opaque);
}

#else /* QEMU 7.2 */

#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"

#define COMPAT_READV_FLAGS
#define COMPAT_AIO_CONTEXTS AioContext *ctx, IOHandler *io_read
#define COMPAT_FD_OFFSET(rb) 0

static inline void compat_lock(void)
{
    qemu_mutex_lock_iothread();
}

static inline void compat_unlock(void)
{
    qemu_mutex_unlock_iothread();
}

static inline bool compat_return_path(void)
{
    return migrate_use_return_path();
}

static inline bool compat_multifd(void)
{
    return migrate_use_multifd();
}

static inline bool compat_colo(void)
{
    return migrate_colo_enabled();
}

static inline bool compat_tls(void)
{
    return migrate_use_tls();
}

static inline bool compat_mapped_ram(void)
{
    return false;
}

static inline bool compat_other_mode(void)
{
    return false;
}

static inline bool compat_pin_all(MigrationState *s)
{
    return s->enabled_capabilities[MIGRATION_CAPABILITY_RDMA_PIN_ALL];
}

static inline void compat_keep_stopped(MigrationState *s)
{
    s->vm_was_running = false;
}

static inline bool compat_kept_stopped(MigrationState *s)
{
    return !s->vm_was_running;
}

static inline void compat_connect(MigrationState *s, Error *err)
{
    migrate_fd_connect(s, err);
}

static inline void compat_process_incoming(QEMUFile *f)
{
    Error *err = NULL;

    migration_fd_process_incoming(f, &err);
    if (err) {
        error_report_err(err);
    }
}

static inline void compat_watch_fd(AioContext *ctx, int fd, IOHandler *io_read, void *opaque)
{
    aio_set_fd_handler(ctx, fd, false, io_read, NULL, NULL, NULL, opaque);
}

#endif

#endif
