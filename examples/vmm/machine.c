/* SPDX-License-Identifier: BSD-2-Clause */
/* machine.c -- what is migrated: RAM that vCPUs write, and devices with state */

#include <string.h>
#include <sys/mman.h>

#include "vmm.h"

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void vm_init(Vm *vm, size_t size)
{
    static const VmmDevice devices[VMM_DEVICES] = {
        {.name = "rtc", .size = 40},
        {.name = "nic", .size = 3 << 20, .load_ms = 20},
        {.name = "gpu", .size = 40 << 20, .load_ms = 100},
    };

    memset(vm, 0, sizeof(*vm));
    vm->size = size;
    vm->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert(vm->ram != MAP_FAILED);
    vm->dirty = g_malloc0(size / VMM_PAGE);
    memcpy(vm->devices, devices, sizeof(devices));
    for (unsigned i = 0; i < VMM_DEVICES; i++) {
        vm->devices[i].state = g_malloc0(devices[i].size);
    }
    for (unsigned i = 0; i < VMM_CPUS; i++) {
        vm->cpus[i] = (Cpu){.vm = vm, .random = i + 1};
    }
}

void vm_clear(Vm *vm)
{
    for (unsigned i = 0; i < VMM_DEVICES; i++) {
        g_free(vm->devices[i].state);
    }
    g_free(vm->dirty);
    munmap(vm->ram, vm->size);
}

void vm_power_on(Vm *vm)
{
    uint64_t random = 4711;

    for (size_t at = 0; at < vm->size / 2; at += 8) { /* the other half is never touched */
        next_random(&random);
        memcpy(vm->ram + at, &random, 8);
    }
    for (unsigned i = 0; i < VMM_DEVICES; i++) {
        memset(vm->devices[i].state, (int)(0x40 + i), vm->devices[i].size);
        vm->devices[i].version = 10 + i;
    }
}

/* --- vCPUs --- */

static void *cpu_main(void *opaque)
{
    Cpu *cpu = opaque;
    Vm *vm = cpu->vm;

    while (g_atomic_int_get(&vm->running)) {
        size_t at = next_random(&cpu->random) % (vm->size / 2 / 8) * 8;

        /* The log comes first, because a write that it misses would be lost. */
        __atomic_store_n(&vm->dirty[at / VMM_PAGE], 1, __ATOMIC_SEQ_CST);
        __atomic_store_n((uint64_t *)(vm->ram + at), cpu->random, __ATOMIC_SEQ_CST);
        if (++cpu->steps % 64 == 0) {
            g_usleep(100);
        }
    }
    return NULL;
}

void vm_run(Vm *vm)
{
    g_atomic_int_set(&vm->running, 1);
    for (unsigned i = 0; i < VMM_CPUS; i++) {
        vm->cpus[i].thread = g_thread_new("vcpu", cpu_main, &vm->cpus[i]);
    }
}

void vm_stop(Vm *vm)
{
    g_atomic_int_set(&vm->running, 0);
    for (unsigned i = 0; i < VMM_CPUS; i++) {
        if (vm->cpus[i].thread) {
            g_thread_join(g_steal_pointer(&vm->cpus[i].thread));
        }
    }
}

bool vm_take_dirty(Vm *vm, size_t page)
{
    return __atomic_exchange_n(&vm->dirty[page], 0, __ATOMIC_SEQ_CST);
}

uint64_t vm_hash(const Vm *vm)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    guint8 digest[32];
    gsize length = sizeof(digest);
    uint64_t hash;

    for (size_t at = 0; at < vm->size; at += 1 << 20) {
        g_checksum_update(sum, vm->ram + at, (gssize)MIN(vm->size - at, 1 << 20));
    }
    for (unsigned i = 0; i < VMM_DEVICES; i++) {
        g_checksum_update(sum, vm->devices[i].state, (gssize)vm->devices[i].size);
    }
    g_checksum_get_digest(sum, digest, &length);
    memcpy(&hash, digest, sizeof(hash));
    return hash;
}
