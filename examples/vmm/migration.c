/* SPDX-License-Identifier: BSD-2-Clause */
/* migration.c -- moving the machine to another process: all that a VMM does with vmferry */

#include <string.h>

#include "vmm.h"

/* The VM is stopped when fewer pages than this are dirty. */
#define FEW_PAGES 2000
#define MOST_ROUNDS 30
/* A device puts its state in pieces: one is under way while the next is made. */
#define PIECE (1u << 20)

/* "STOP": a marker in the stream, where the VM has stopped. */
#define STOPPED 0x53544f50u

/* --- devices --- */

static void keep(void *state)
{
    (void)state; /* the device keeps its state until the VM is gone: nothing to free */
}

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    VmmDevice *device = opaque;

    for (size_t at = 0; at < device->size; at += PIECE) {
        size_t size = MIN(device->size - at, PIECE);

        if (!vmf_device_put(job, device->state + at, size, keep, NULL, error)) {
            return false;
        }
    }
    return true;
}

static GBytes *save_config(void *opaque, GError **error)
{
    VmmDevice *device = opaque;

    (void)error;
    return g_bytes_new(&device->version, sizeof(device->version));
}

static bool load(VmfDeviceJob *job, void *opaque, GError **error)
{
    VmmDevice *device = opaque;
    const void *data;
    size_t size, at = 0;

    while (vmf_device_get(job, &data, &size, error) && data) {
        if (size > device->size - at) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "more state than it can have");
            return false;
        }
        memcpy(device->state + at, data, size);
        at += size;
    }
    g_usleep(device->load_ms * 1000);
    return !*error;
}

static bool load_config(const void *config, size_t size, void *opaque, GError **error)
{
    VmmDevice *device = opaque;

    if (size != sizeof(device->version)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "a configuration of %zu bytes", size);
        return false;
    }
    memcpy(&device->version, config, size);
    return true;
}

static bool add_devices(Vm *vm, VmfSession *session, GError **error)
{
    static const VmfDeviceOps ops = {.size = sizeof(ops),
                                     .save = save,
                                     .save_config = save_config,
                                     .load = load,
                                     .load_config = load_config};

    for (unsigned i = 0; i < VMM_DEVICES; i++) {
        if (!vmf_devices_add(vmf_session_get_devices(session), vm->devices[i].name, 0, &ops,
                             &vm->devices[i], error)) {
            return false;
        }
    }
    return true;
}

/* --- the source --- */

static size_t save_dirty(Vm *vm, VmfFile *file, const VmfRamBlock *block)
{
    size_t saved = 0;

    for (size_t page = 0; page < vm->size / VMM_PAGE; page++) {
        if (vm_take_dirty(vm, page)) {
            vmf_save_ram_page(file, block, page * VMM_PAGE, VMM_PAGE);
            saved++;
        }
    }
    return saved;
}

/* Saves all of RAM, and then what the VM has written, until little is left. The VM runs. */
static void rounds(Vm *vm, VmfFile *file, const VmfRamBlock *block)
{
    size_t saved;

    memset(vm->dirty, 1, vm->size / VMM_PAGE);
    for (unsigned round = 0; round < MOST_ROUNDS; round++) {
        saved = save_dirty(vm, file, block);
        if (!vmf_flush_ram_pages(file, VMF_FLUSH_ROUND) || (round && saved < FEW_PAGES)) {
            break;
        }
    }
}

/* The VM is stopped: sends what is left of RAM, and all other state. */
static bool switch_over(Vm *vm, VmfSession *session, const VmfRamBlock *block, GError **error)
{
    VmfDevices *devices = vmf_session_get_devices(session);
    VmfFile *file = vmf_session_get_file(session);

    vmf_put_be32(file, STOPPED);
    if (!vmf_devices_start(devices, error)) { /* device state goes beside the last pages */
        return false;
    }
    save_dirty(vm, file, block);
    for (unsigned i = 0; i < VMM_CPUS; i++) {
        vmf_put_be64(file, vm->cpus[i].random);
        vmf_put_be64(file, vm->cpus[i].steps);
    }
    vmf_put_be64(file, vm_hash(vm));
    return vmf_flush_ram_pages(file, VMF_FLUSH_FINAL) && vmf_file_check(file, error) &&
           vmf_devices_finish(devices, error) && vmf_session_complete(session, error);
}

bool vm_send(Vm *vm, const char *text, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(VmfSession) session = NULL;
    const VmfRamBlock *block;

    if (!uri || !(block = vmf_ram_blocks_add(blocks, "ram", vm->ram, vm->size, VMM_PAGE, error)) ||
        !(session = vmf_session_connect(uri, blocks, NULL, error)) ||
        !add_devices(vm, session, error)) {
        return false;
    }
    rounds(vm, vmf_session_get_file(session), block);
    vm_stop(vm);
    if (switch_over(vm, session, block, error)) {
        return true;
    }
    if (!*error) {
        vmf_session_check(session, error);
    }
    /* A side must not run the VM unless it knows that the other side does not have it. */
    if (vmf_session_get_owner(session) == VMF_OWNER_THIS_SIDE) {
        vm_run(vm);
    }
    return false;
}

/* --- the destination --- */

/* RAM comes beside the stream, in which this VM puts nothing else while it runs. */
static bool await_stop(VmfFile *file, GError **error)
{
    const uint32_t marker = vmf_get_be32(file);

    if (!vmf_file_check(file, error)) {
        return false;
    }
    if (marker != STOPPED) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "0x%x where the VM stops", marker);
        return false;
    }
    return true;
}

static bool read_stream(Vm *vm, VmfFile *file, uint64_t *hash, GError **error)
{
    for (unsigned i = 0; i < VMM_CPUS; i++) {
        vm->cpus[i].random = vmf_get_be64(file);
        vm->cpus[i].steps = vmf_get_be64(file);
    }
    *hash = vmf_get_be64(file);
    return vmf_file_check(file, error);
}

bool vm_receive(Vm *vm, const char *text, GError **error)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);
    g_autoptr(VmfListener) listener = uri ? vmf_listener_new(uri, error) : NULL;
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(VmfSession) session = NULL;
    VmfDevices *devices;
    uint64_t hash;

    vmf_ram_blocks_set_discardable(blocks); /* no device is assigned to this VM */
    if (!listener || !vmf_ram_blocks_add(blocks, "ram", vm->ram, vm->size, VMM_PAGE, error) ||
        !(session = vmf_session_accept(listener, blocks, NULL, error))) {
        return false;
    }
    devices = vmf_session_get_devices(session);
    if (!add_devices(vm, session, error) || !vmf_devices_expect(devices, error) ||
        !await_stop(vmf_session_get_file(session), error) || !vmf_devices_begin(devices, error) ||
        !read_stream(vm, vmf_session_get_file(session), &hash, error) ||
        !vmf_devices_load(devices, error)) {
        return false;
    }
    if (vm_hash(vm) != hash) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED, "RAM or devices are not what they were");
        vmf_session_fail(session, g_error_copy(*error));
        return false;
    }
    /* The last call that can fail: after it the VM is this side's. */
    return vmf_session_complete(session, error);
}
