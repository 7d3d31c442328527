/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's RAM blocks as vmferry's. */

#include "glue.h"

#include "exec/ramblock.h"

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

void discards_reserve(bool *reserved, VmfRamBlocks *ram)
{
    *reserved = ram_block_discard_require(true) == 0;
    if (*reserved) {
        vmf_ram_blocks_set_discardable(ram);
    }
}

void discards_release(bool *reserved)
{
    if (*reserved) {
        ram_block_discard_require(false);
    }
    *reserved = false;
}

void block_list_clear(BlockList *list)
{
    vmf_ram_blocks_unref(list->ram);
    g_clear_pointer(&list->blocks, g_array_unref);
    g_clear_error(&list->error);
    list->ram = NULL;
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
