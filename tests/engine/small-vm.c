/* SPDX-License-Identifier: BSD-2-Clause */
/* small-vm.c -- the VM that the tests' QEMUs migrate: a few RAM blocks, and one device */

#include "small-vm.h"

#include <string.h>

const char *const vm_block_names[VM_BLOCKS] = {"pc.ram", "vga.vram", "pc.rom"};
/* Two chunks and a part, one chunk, a part. */
const uint64_t vm_block_bytes[VM_BLOCKS] = {2304 * 1024, 1024 * 1024, 64 * 1024};

/* A guest writes its RAM while it is read, by design. */
__attribute__((no_sanitize("thread"))) void small_vm_change(SmallVm *vm, unsigned block,
                                                            unsigned page, unsigned seed)
{
    volatile uint64_t *words = (uint64_t *)(vm->blocks[block] + (size_t)page * VM_PAGE);
    uint64_t state = (uint64_t)seed * 2654435761u + block * 1000003u + page;

    for (unsigned i = 0; i < VM_PAGE / 8; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        words[i] = seed ? state : 0;
    }
}

/* Block 0: zeros within chunk 0, and chunk 1. Block 1: its first half. */
static bool is_zero_at_first(unsigned block, unsigned page)
{
    return (block == 0 && ((page >= 100 && page < 200) || (page >= 256 && page < 512))) ||
           (block == 1 && page < 128);
}

void small_vm_init(SmallVm *vm, bool source)
{
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        vm->blocks[i] = g_aligned_alloc0(1, vm_block_bytes[i], VM_PAGE);
        for (unsigned page = 0; page < vm_block_bytes[i] / VM_PAGE; page++) {
            small_vm_change(vm, i, page, source ? !is_zero_at_first(i, page) : 99);
        }
    }
}

void small_vm_clear(SmallVm *vm)
{
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        g_aligned_free(vm->blocks[i]);
    }
}

void small_vm_device(uint8_t content[VM_DEVICE_BYTES])
{
    static const uint8_t like_the_end[] = {0, 6, 0, 0, 0, 2, '{', '}'};

    for (unsigned i = 0; i < VM_DEVICE_BYTES; i++) {
        content[i] = (uint8_t)(i * 7 + i / 256);
    }
    memcpy(content + 1000, like_the_end, sizeof(like_the_end));
    memset(content + VM_DEVICE_BYTES - 16, 0, 16);
}

char *small_vm_description(size_t bytes)
{
    char *text = g_malloc(bytes + 1);

    memset(text, ' ', bytes);
    text[0] = '{';
    text[bytes - 1] = '}';
    text[bytes] = '\0';
    return text;
}
