/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU 7.2 calls RAM's transport by QEMUFileHooks. */

#include "glue.h"

#include "compat.h"

#include "exec/address-spaces.h"
#include "hw/core/cpu.h"
#include "sysemu/tcg.h"

/* --- the dirty log of emulated CPUs --- */

static void flush_tlb(CPUState *cpu, run_on_cpu_data data)
{
    tcg_flush_softmmu_tlb(cpu);
}

/*
 * Before 9.0 QEMU takes the dirty bits of RAM blocks without telling TCG. CPUs of TCG go on writing
 * by TLB entries that mark nothing dirty, so such writes are lost. A flush of the TLB after the
 * bits are taken, and before pages are read, makes later writes seen. KVM does not need this.
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

/* --- RAM --- */

static size_t hook_save_page(QEMUFile *f, ram_addr_t block_offset, ram_addr_t offset, size_t size,
                             uint64_t *bytes_sent)
{
    int ret = source_save_page(f, block_offset, offset, size);

    if (ret == 0) {
        *bytes_sent = size;
    }
    return ret;
}

static int hook_before_ram(QEMUFile *f, uint64_t flags, void *data)
{
    return source_before_ram(f);
}

static int hook_after_ram(QEMUFile *f, uint64_t flags, void *data)
{
    return source_after_ram(f, flags);
}

static const QEMUFileHooks source_hooks = {
    .before_ram_iterate = hook_before_ram,
    .after_ram_iterate = hook_after_ram,
    .save_page = hook_save_page,
};

/* The session has handled all RAM after a hook of stock QEMU when QEMU reads the hook. */
static int hook_ram_load(QEMUFile *f, uint64_t flags, void *data)
{
    return flags != RAM_CONTROL_HOOK || QIO_CHANNEL_VMFERRY(qemu_file_get_ioc(f))->stock ? 0
                                                                                         : -EINVAL;
}

static const QEMUFileHooks destination_hooks = {
    .hook_ram_load = hook_ram_load,
};

static void hook_remaining(QEMUFile *f, void *opaque, uint64_t threshold_size,
                           uint64_t *precopy_only, uint64_t *compatible, uint64_t *postcopy_only)
{
    QIOChannelVmferry *rioc = opaque;
    uint64_t remaining = *precopy_only + *compatible + *postcopy_only;

    if (switchover_wants_another_slice(&rioc->switchover, remaining, threshold_size)) {
        *precopy_only += threshold_size;
    }
}

const SaveVMHandlers interface_remaining = {
    .save_live_pending = hook_remaining,
};

void interface_connected(QIOChannelVmferry *rioc, QEMUFile *f)
{
    if (rioc->outgoing) {
        qemu_file_set_hooks(f, &source_hooks);
        watch_dirty_log(rioc);
    } else {
        qemu_file_set_hooks(f, &destination_hooks);
    }
}

void interface_refund(QEMUFile *f, uint64_t pages, uint64_t limited_pages)
{
    const uint64_t each = qemu_target_page_size() - ZERO_PAGE_BYTES;

    ram_counters.normal -= pages;
    ram_counters.duplicate += pages;
    ram_counters.transferred -= pages * each;
    ram_counters.precopy_bytes -= MIN(pages * each, ram_counters.precopy_bytes);
    qemu_file_credit_transfer(f, -(pages * each));
    qemu_file_acct_rate_limit(f, -(int64_t)(limited_pages * each));
}

uint64_t interface_rounds(void)
{
    return ram_counters.dirty_sync_count;
}

/* --- starting --- */

void rdma_start_outgoing_migration(void *opaque, const char *host_port, Error **errp)
{
    VmfUri *uri = glue_can_migrate(errp) ? glue_parse_uri(host_port, errp) : NULL;

    if (uri) {
        source_start(opaque, uri, errp);
    }
}

void rdma_start_incoming_migration(const char *host_port, Error **errp)
{
    VmfUri *uri = glue_can_migrate(errp) ? glue_parse_uri(host_port, errp) : NULL;

    if (uri) {
        destination_start(uri, errp);
    }
}
