/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c -- vmm send URI | vmm receive URI: a machine runs here, then there */

#include <stdio.h>
#include <string.h>

#include "vmm.h"

#define RAM (96u << 20)

static void report(const Vm *vm, const char *what)
{
    uint64_t steps = 0;

    for (unsigned i = 0; i < VMM_CPUS; i++) {
        steps += vm->cpus[i].steps;
    }
    printf("%s, after %" G_GUINT64_FORMAT " steps of its CPUs\n", what, steps);
}

static bool send_it(Vm *vm, const char *uri, GError **error)
{
    vm_power_on(vm);
    vm_run(vm);
    if (!vm_send(vm, uri, error)) {
        vm_stop(vm);
        report(vm, "the VM ran on here");
        return false;
    }
    report(vm, "the VM is gone");
    return true;
}

static bool receive_it(Vm *vm, const char *uri, GError **error)
{
    if (!vm_receive(vm, uri, error)) {
        return false;
    }
    report(vm, "the VM is here");
    vm_run(vm);
    g_usleep(200 * 1000);
    vm_stop(vm);
    report(vm, "it runs");
    return true;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    bool ok;
    Vm vm;

    if (argc != 3 || (strcmp(argv[1], "send") != 0 && strcmp(argv[1], "receive") != 0)) {
        fprintf(stderr, "usage: vmm send|receive URI\n");
        return 2;
    }
    vm_init(&vm, RAM);
    ok = strcmp(argv[1], "send") == 0 ? send_it(&vm, argv[2], &error)
                                      : receive_it(&vm, argv[2], &error);
    if (!ok) {
        fprintf(stderr, "vmm: %s\n", error->message);
    }
    vm_clear(&vm);
    return ok ? 0 : 1;
}
