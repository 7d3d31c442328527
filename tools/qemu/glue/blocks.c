/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's RAM blocks as vmferry's. */

#include "glue.h"

#include "compat.h"

#include "exec/ramblock.h"

static int add_block(RAMBlock *rb, void *opaque)
{
    BlockList *list = opaque;
    /*
     * A block that may grow (firmware tables) is mapped up to its maximum, which both sides share.
     */
    uint64_t length = qemu_ram_get_max_length(rb);
    uint32_t page_size = qemu_target_page_size();
    const char *name = qemu_ram_get_idstr(rb);
    void *host = qemu_ram_get_host_addr(rb);
    Block block = {.start = qemu_ram_get_offset(rb)};

    if (qemu_ram_is_shared(rb) && qemu_ram_get_fd(rb) >= 0) {
        block.ram =
            vmf_ram_blocks_add_shared(list->ram, name, host, length, page_size, qemu_ram_get_fd(rb),
                                      COMPAT_FD_OFFSET(rb), &list->error);
    } else {
        block.ram = vmf_ram_blocks_add(list->ram, name, host, length, page_size, &list->error);
    }
    if (block.ram && rb->flags & RAM_RESIZEABLE) {
        vmf_ram_blocks_set_resizable(list->ram, block.ram);
    }
    g_array_append_val(list->blocks, block);
    return block.ram ? 0 : -EINVAL;
}

bool block_list_fill(BlockList *list, Error **errp)
{
    list->ram = vmf_ram_blocks_new();
    list->blocks = g_array_new(false, false, sizeof(Block));
    if (foreach_not_ignored_block(add_block, list) == 0) {
        return true;
    }
    error_setg(errp, "vmferry: %s", list->error->message);
    block_list_clear(list);
    return false;
}

/*
 * Discards that others need (virtio-mem) are refused, because nothing tells vmferry of them.
 * Devices that discard by choice (the balloon) then do not.
 */
bool discards_forbid(Discards *discards, Error **errp)
{
    if (ram_block_discard_disable(true) < 0) {
        error_setg(errp,
                   "vmferry: a device of this VM needs to discard guest RAM (virtio-mem does), "
                   "which rdma: cannot follow: unplug it before the VM is migrated");
        return false;
    }
    *discards = DISCARDS_FORBIDDEN;
    return true;
}

bool discards_reserve(Discards *discards, VmfRamBlocks *ram, Error **errp)
{
    if (ram_block_discard_is_required()) {
        return discards_forbid(discards, errp); /* it says why not */
    }
    if (ram_block_discard_require(true) == 0) {
        *discards = DISCARDS_RESERVED;
        vmf_ram_blocks_set_discardable(ram);
    }
    return true;
}

void discards_release(Discards *discards)
{
    if (*discards == DISCARDS_FORBIDDEN) {
        ram_block_discard_disable(false);
    } else if (*discards == DISCARDS_RESERVED) {
        ram_block_discard_require(false);
    }
    *discards = DISCARDS_FREE;
}

void block_list_clear(BlockList *list)
{
    g_clear_pointer(&list->ram, vmf_ram_blocks_unref);
    g_clear_pointer(&list->blocks, g_array_unref);
    g_clear_error(&list->error);
}

const VmfRamBlock *block_find(QIOChannelVmferry *rioc, ram_addr_t start)
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
