/* SPDX-License-Identifier: BSD-2-Clause */
/* stub-engine.c -- an engine that counts discards, and has no device */

#include <errno.h>
#include <stdlib.h>

#include "preload/qemu-engine.h"
#include "stub-engine.h"

StubEngine stub_engine;

static const QemuShim *shim;

static void memory(void *address, size_t length, int advice)
{
    stub_engine.memory++;
    stub_engine.address = address;
    stub_engine.length = length;
    stub_engine.advice = advice;
    if (stub_engine.inside) {
        stub_engine.inside();
    }
    errno = EXDEV;
}

static void file(int fd, int64_t offset, int64_t length, int mode)
{
    stub_engine.file++;
    stub_engine.fd = fd;
    stub_engine.offset = offset;
    stub_engine.length = (size_t)length;
    stub_engine.mode = mode;
    errno = EXDEV;
}

static const QemuDiscardWatch watch = {.memory = memory, .file = file};

static void watch_discards(bool on)
{
    shim->watch_discards(on ? &watch : NULL);
}

static bool owns_channel(const struct rdma_event_channel *channel)
{
    (void)channel;
    return false;
}

static struct rdma_event_channel *create_event_channel(void)
{
    errno = EXDEV;
    return NULL;
}

__attribute__((visibility("default"))) const QemuEngine *
vmferry_qemu_engine(const QemuShim *of_process)
{
    static QemuEngine engine = {
        .size = sizeof(engine),
        .abi = QEMU_ENGINE_ABI,
        .owns_channel = owns_channel,
        .rdma_create_event_channel = create_event_channel,
    };

    if (getenv("VMFERRY_TEST_OTHER_ABI")) {
        engine.abi++;
    } else {
        engine.abi = QEMU_ENGINE_ABI;
    }
    shim = of_process;
    stub_engine.watch_discards = watch_discards;
    return &engine;
}
