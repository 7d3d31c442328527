/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-blocks.c -- the set of RAM blocks that a VMM describes */

#include <string.h>

#include "ram-blocks.h"
#include "ram-watch.h"

/* Blocks of the set of expected memory have a page size, which nobody uses. */
#define EXPECTED_PAGE 4096

struct VmfRamBlocks {
    gatomicrefcount references;
    GPtrArray *blocks;   /* VmfRamBlock, owned */
    GHashTable *by_name; /* name -> VmfRamBlock */
    GTree *by_address;   /* VmfRamBlock, in the order of their memory */
    uint64_t total;
    VmfRamAllocate allocate; /* or NULL */
    void *opaque;
    bool discardable;
    bool late;
    VmfRamBlocks *expected; /* where a late set will probably be, or NULL */
    RamWatches watches;
};

static void block_free(void *opaque)
{
    VmfRamBlock *block = opaque;

    g_free((char *)block->name);
    g_free(block);
}

/*
 * Blocks do not overlap. So a range that overlaps a block can count as equal, and a look-up finds
 * that block.
 */
static gint compare_addresses(gconstpointer one, gconstpointer other)
{
    const VmfRamBlock *a = one, *b = other;

    return a->host + a->length <= b->host ? -1 : b->host + b->length <= a->host;
}

VmfRamBlocks *vmf_ram_blocks_new(void)
{
    VmfRamBlocks *blocks = g_new0(VmfRamBlocks, 1);

    g_atomic_ref_count_init(&blocks->references);
    ram_watches_init(&blocks->watches);
    blocks->blocks = g_ptr_array_new_with_free_func(block_free);
    blocks->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    blocks->by_address = g_tree_new(compare_addresses);
    return blocks;
}

VmfRamBlocks *vmf_ram_blocks_ref(VmfRamBlocks *blocks)
{
    g_atomic_ref_count_inc(&blocks->references);
    return blocks;
}

void vmf_ram_blocks_unref(VmfRamBlocks *blocks)
{
    if (blocks && g_atomic_ref_count_dec(&blocks->references)) {
        vmf_ram_blocks_unref(blocks->expected);
        g_tree_unref(blocks->by_address);
        ram_watches_clear(&blocks->watches);
        g_hash_table_unref(blocks->by_name);
        g_ptr_array_unref(blocks->blocks);
        g_free(blocks);
    }
}

static const VmfRamBlock *overlapping(const VmfRamBlocks *blocks, uint8_t *host, uint64_t length)
{
    const VmfRamBlock range = {.host = host, .length = length};

    return g_tree_lookup(blocks->by_address, &range);
}

static bool valid_block(const VmfRamBlocks *blocks, const char *name, uint8_t *host,
                        uint64_t length, uint32_t page_size, GError **error)
{
    const VmfRamBlock *other;
    size_t size = strlen(name);

    if (size == 0 || size > VMF_RAM_NAME_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "a RAM block's name has 1 to %d bytes, this has %zu", VMF_RAM_NAME_MAX, size);
    } else if (g_hash_table_contains(blocks->by_name, name)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "there are two RAM blocks named \"%s\"",
                    name);
    } else if (length == 0 || (uintptr_t)host + length < (uintptr_t)host) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" has no memory (%" G_GUINT64_FORMAT " bytes at %p)", name,
                    length, (const void *)host);
    } else if (page_size < 512 || (page_size & (page_size - 1))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\": page size %u is no power of two from 512 up", name,
                    page_size);
    } else if (blocks->blocks->len == VMF_RAM_BLOCKS_MAX) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "more than %d RAM blocks",
                    VMF_RAM_BLOCKS_MAX);
    } else if (host && (other = overlapping(blocks, host, length))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" overlaps RAM block \"%s\"", name, other->name);
    } else {
        return true;
    }
    return false;
}

static const VmfRamBlock *add(VmfRamBlocks *blocks, const char *name, void *host, uint64_t length,
                              uint32_t page_size, int fd, uint64_t fd_offset, GError **error)
{
    VmfRamBlock *block;

    if (!valid_block(blocks, name, host, length, page_size, error)) {
        return NULL;
    }
    block = g_new(VmfRamBlock, 1);
    *block = (VmfRamBlock){
        .name = g_strdup(name),
        .host = host,
        .length = length,
        .page_size = page_size,
        .index = blocks->blocks->len,
        .fd = fd,
        .fd_offset = fd_offset,
    };
    g_ptr_array_add(blocks->blocks, block);
    g_hash_table_insert(blocks->by_name, (char *)block->name, block);
    if (host) {
        g_tree_insert(blocks->by_address, block, block);
    }
    blocks->total += length;
    return block;
}

const VmfRamBlock *vmf_ram_blocks_add_shared(VmfRamBlocks *blocks, const char *name, void *host,
                                             uint64_t length, uint32_t page_size, int fd,
                                             uint64_t fd_offset, GError **error)
{
    if (!host) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" has no memory (%" G_GUINT64_FORMAT " bytes at NULL)", name,
                    length);
        return NULL;
    }
    return add(blocks, name, host, length, page_size, fd, fd_offset, error);
}

const VmfRamBlock *vmf_ram_blocks_add(VmfRamBlocks *blocks, const char *name, void *host,
                                      uint64_t length, uint32_t page_size, GError **error)
{
    return vmf_ram_blocks_add_shared(blocks, name, host, length, page_size, -1, 0, error);
}

void vmf_ram_blocks_set_late(VmfRamBlocks *blocks)
{
    blocks->late = true;
}

bool ram_blocks_late(const VmfRamBlocks *blocks)
{
    return blocks->late;
}

bool ram_blocks_expect(VmfRamBlocks *blocks, void *host, uint64_t length, GError **error)
{
    g_autofree char *name = g_strdup_printf("memory at %p", host);

    if (!blocks->expected) {
        blocks->expected = vmf_ram_blocks_new();
    }
    return vmf_ram_blocks_add(blocks->expected, name, host, length, EXPECTED_PAGE, error) != NULL;
}

VmfRamBlocks *ram_blocks_expected(const VmfRamBlocks *blocks)
{
    return blocks->expected;
}

const VmfRamBlock *vmf_ram_blocks_add_unplaced(VmfRamBlocks *blocks, const char *name,
                                               uint64_t length, uint32_t page_size, GError **error)
{
    if (!blocks->late) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" has no memory, and its set is not one that is named late",
                    name);
        return NULL;
    }
    return add(blocks, name, NULL, length, page_size, -1, 0, error);
}

bool vmf_ram_blocks_set_host(VmfRamBlocks *blocks, const VmfRamBlock *block, void *host,
                             GError **error)
{
    const uintptr_t end = (uintptr_t)host + block->length;
    const VmfRamBlock *other;
    VmfRamBlock *own;

    if (!ram_blocks_has(blocks, block) || block->host || !host || end < (uintptr_t)host) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "the memory of RAM block \"%s\" is known already, or cannot be at %p",
                    block->name, host);
        return false;
    }
    other = overlapping(blocks, host, block->length);
    if (other) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM block \"%s\" overlaps RAM block \"%s\"", block->name, other->name);
        return false;
    }
    own = blocks->blocks->pdata[block->index];
    own->host = host;
    g_tree_insert(blocks->by_address, own, own);
    return true;
}

void vmf_ram_blocks_set_resizable(VmfRamBlocks *blocks, const VmfRamBlock *block)
{
    if (ram_blocks_has(blocks, block)) {
        VmfRamBlock *own = blocks->blocks->pdata[block->index];

        own->resizable = true;
    }
}

void vmf_ram_blocks_set_allocator(VmfRamBlocks *blocks, VmfRamAllocate allocate, void *opaque)
{
    blocks->allocate = allocate;
    blocks->opaque = opaque;
}

void vmf_ram_blocks_set_discardable(VmfRamBlocks *blocks)
{
    blocks->discardable = true;
}

bool ram_blocks_discardable(const VmfRamBlocks *blocks)
{
    return blocks->discardable;
}

bool ram_blocks_can_grow(const VmfRamBlocks *blocks)
{
    return blocks->allocate != NULL;
}

const VmfRamBlock *ram_blocks_grow(VmfRamBlocks *blocks, const char *name, uint64_t length,
                                   uint32_t page_size, GError **error)
{
    void *host = blocks->allocate(blocks->opaque, name, length, error);

    return host ? vmf_ram_blocks_add(blocks, name, host, length, page_size, error) : NULL;
}

bool ram_blocks_has(const VmfRamBlocks *blocks, const VmfRamBlock *block)
{
    return vmf_ram_blocks_get(blocks, block->index) == block;
}

unsigned vmf_ram_blocks_count(const VmfRamBlocks *blocks)
{
    return blocks->blocks->len;
}

const VmfRamBlock *vmf_ram_blocks_get(const VmfRamBlocks *blocks, unsigned index)
{
    return index < blocks->blocks->len ? blocks->blocks->pdata[index] : NULL;
}

const VmfRamBlock *vmf_ram_blocks_find(const VmfRamBlocks *blocks, const char *name)
{
    return g_hash_table_lookup(blocks->by_name, name);
}

uint64_t vmf_ram_blocks_total(const VmfRamBlocks *blocks)
{
    return blocks->total;
}

/* --- discards --- */

struct VmfRamWatch {
    RamWatch entry; /* first */
    VmfRamBlocks *blocks;
};

VmfRamWatch *vmf_ram_blocks_watch(VmfRamBlocks *blocks, VmfRamDiscarded discarded, void *opaque)
{
    VmfRamWatch *watch = g_new(VmfRamWatch, 1);

    *watch = (VmfRamWatch){.entry = {.discarded = discarded, .opaque = opaque},
                           .blocks = vmf_ram_blocks_ref(blocks)};
    ram_watches_add(&blocks->watches, &watch->entry);
    return watch;
}

void vmf_ram_blocks_unwatch(VmfRamWatch *watch)
{
    if (!watch) {
        return;
    }
    ram_watches_remove(&watch->blocks->watches, &watch->entry);
    vmf_ram_blocks_unref(watch->blocks);
    g_free(watch);
}

void vmf_ram_discarded(VmfRamBlocks *blocks, const VmfRamBlock *block, uint64_t offset,
                       uint64_t length)
{
    ram_watches_tell(&blocks->watches, block, offset, length);
}
