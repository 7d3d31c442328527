/* SPDX-License-Identifier: BSD-2-Clause */
/* small-vm.h -- the VM that the tests' QEMUs migrate: a few RAM blocks, and one device */

#ifndef VMF_TESTS_SMALL_VM_H
#define VMF_TESTS_SMALL_VM_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define VM_BLOCKS 3
#define VM_PAGE 4096u
#define VM_DEVICE_BYTES 40000u
/* Numbers of sections. */
enum { VM_RAM_SECTION = 2, VM_DEVICE_SECTION = 3 };
#define VM_RAM_NAME "ram"
#define VM_DEVICE_NAME "timer"

typedef struct SmallVm {
    uint8_t *blocks[VM_BLOCKS];
} SmallVm;

/* The blocks in the order of the source. */
extern const char *const vm_block_names[VM_BLOCKS];
extern const uint64_t vm_block_bytes[VM_BLOCKS];

/* Memory with data and zero pages, or with other data everywhere. */
void small_vm_init(SmallVm *vm, bool source);
void small_vm_clear(SmallVm *vm);
/* The guest changes a page. Seed 0: to zeros. */
void small_vm_change(SmallVm *vm, unsigned block, unsigned page, unsigned seed);
/* What the device's section has: it has what looks like the end of a stream. */
void small_vm_device(uint8_t content[VM_DEVICE_BYTES]);
/* A description of devices, of so many bytes. */
char *small_vm_description(size_t bytes);

#endif
