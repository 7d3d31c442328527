/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU 10 calls RAM's transport by names. It does so in every migration, with vmferry or without.
 */

#include "glue.h"

#include "compat.h"

#include "migration/migration-stats.h"
#include "migration/yank_functions.h"

/* --- RAM --- */

int rdma_control_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset, size_t size)
{
    int ret;

    if (!migrate_rdma()) {
        return RAM_SAVE_CONTROL_NOT_SUPP;
    }
    ret = source_save_page(f, block_offset, offset, size);
    if (ret) {
        return ret;
    }
    stat64_add(&mig_stats.normal_pages, 1);
    stat64_add(&mig_stats.rdma_bytes, size);
    return RAM_SAVE_CONTROL_DELAYED;
}

int rdma_registration_start(QEMUFile *f, uint64_t flags)
{
    return migrate_rdma() ? source_before_ram(f) : 0;
}

int rdma_registration_stop(QEMUFile *f, uint64_t flags)
{
    return migrate_rdma() ? source_after_ram(f, flags) : 0;
}

int rdma_block_notification_handle(QEMUFile *f, const char *name)
{
    return 0;
}

/* The session has handled all RAM after a hook of stock QEMU when QEMU reads the hook. */
int rdma_registration_handle(QEMUFile *f)
{
    return !migrate_rdma() || QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f))->stock ? 0 : -EINVAL;
}

static void remaining_exactly(void *opaque, uint64_t *must_precopy, uint64_t *can_postcopy)
{
    QIOChannelVmferry *rioc = opaque;
    uint64_t limit = migrate_get_current()->threshold_size;

    if (switchover_wants_another_slice(&rioc->switchover, *must_precopy + *can_postcopy, limit)) {
        *must_precopy += limit;
    }
}

const SaveVMHandlers interface_remaining = {
    .state_pending_exact = remaining_exactly,
};

/* QEMU can yank any channel that can be shut down, and expects it to be registered. */
void interface_connected(QIOChannelVmferry *rioc, QEMUFile *f)
{
    migration_ioc_register_yank(QIO_CHANNEL(rioc));
}

void interface_refund(QEMUFile *f, uint64_t pages, uint64_t limited_pages)
{
    const uint64_t each = qemu_target_page_size() - ZERO_PAGE_BYTES;

    stat64_add(&mig_stats.zero_pages, pages);
    stat64_add(&mig_stats.normal_pages, -pages);
    stat64_add(&mig_stats.rdma_bytes, -(pages * each));
    /* The rate limit compares the difference of the two. */
    stat64_add(&mig_stats.rate_limit_start, -((pages - limited_pages) * each));
}

uint64_t interface_rounds(void)
{
    return stat64_get(&mig_stats.dirty_sync_count);
}

/* --- starting --- */

/*
 * QEMU's parser of addresses ignores unknown text after the port, but takes any host. So vmferry's
 * options go after the host: HOST,OPTION=VALUE:PORT.
 */
static VmfUri *parse_address(const InetSocketAddress *address, Error **errp)
{
    const char *host = address->host;
    const int length = strcspn(host, ",");
    const bool v6 = memchr(host, ':', length) != NULL;
    g_autofree char *host_port = g_strdup_printf(v6 ? "[%.*s]:%s%s" : "%.*s:%s%s", length, host,
                                                 address->port, host + length);

    return glue_parse_uri(host_port, errp);
}

void rdma_start_outgoing_migration(void *opaque, InetSocketAddress *address, Error **errp)
{
    MigrationState *s = opaque;
    VmfUri *uri = glue_can_migrate(errp) ? parse_address(address, errp) : NULL;

    if (uri) {
        s->rdma_migration = true;
        source_start(s, uri, errp);
    }
}

void rdma_start_incoming_migration(InetSocketAddress *address, Error **errp)
{
    VmfUri *uri = glue_can_migrate(errp) ? parse_address(address, errp) : NULL;

    if (uri) {
        migrate_get_current()->rdma_migration = true;
        destination_start(uri, errp);
    }
}
