/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm.h -- a minimal VMM: RAM, threads in the place of vCPUs, three devices */

#ifndef VMM_H
#define VMM_H

#include <vmferry/vmferry.h>

#define VMM_CPUS 2
#define VMM_DEVICES 3
#define VMM_PAGE 4096u

typedef struct Vm Vm;

typedef struct Cpu {
    Vm *vm;
    uint64_t random; /* the state of the "vCPU": what it writes next */
    uint64_t steps;
    GThread *thread;
} Cpu;

typedef struct VmmDevice {
    const char *name;
    size_t size;
    unsigned load_ms; /* how long its load takes */
    uint8_t *state;
    uint32_t version; /* its configuration */
} VmmDevice;

struct Vm {
    uint8_t *ram;
    size_t size;
    uint8_t *dirty; /* a byte for each page, atomic: the dirty log of a hypervisor */
    Cpu cpus[VMM_CPUS];
    VmmDevice devices[VMM_DEVICES];
    int running; /* atomic */
};

/* --- machine.c --- */
void vm_init(Vm *vm, size_t size);
void vm_clear(Vm *vm);
/* Gives RAM and devices a content. A destination gets it from the source. */
void vm_power_on(Vm *vm);
void vm_run(Vm *vm);
void vm_stop(Vm *vm);
/* Whether the page was written since the last call. */
bool vm_take_dirty(Vm *vm, size_t page);
/* A hash of RAM and all devices. */
uint64_t vm_hash(const Vm *vm);

/* --- migration.c --- */
bool vm_send(Vm *vm, const char *uri, GError **error);
bool vm_receive(Vm *vm, const char *uri, GError **error);

#endif
