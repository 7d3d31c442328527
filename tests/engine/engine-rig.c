/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-rig.c -- two programs that migrate a VM as QEMU does, over the engine, in one process */

#include "engine-rig.h"

#include <glib/gstdio.h>
#include <poll.h>
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "local-qemu/local-end.h"
#include "preload/engine-backend.h"
#include "socket-rdma.h"

static char *folder;

int rig_set_up_group(void **state)
{
    (void)state;
    folder = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    if (!folder) {
        return -1;
    }
    socket_rdma_register(folder);
    return 0;
}

int rig_tear_down_group(void **state)
{
    (void)state;
    g_rmdir(folder);
    g_clear_pointer(&folder, g_free);
    return 0;
}

void rig_init(Rig *rig)
{
    static unsigned last_service = 4444;

    memset(rig, 0, sizeof(*rig));
    /* Short, for the tests in which somebody is gone. */
    g_snprintf(rig->host, sizeof(rig->host), "192.0.2.1,timeout=5s,connect-timeout=5s,channels=2");
    g_snprintf(rig->service, sizeof(rig->service), "%u", last_service++);
    for (unsigned i = 0; i < 2; i++) {
        rig->devices[i] = engine_device_new(NULL);
        small_vm_init(&rig->vms[i], i == 0);
    }
    rig->source = (QemuSource){.device = rig->devices[0],
                               .host = rig->host,
                               .service = rig->service,
                               .vm = &rig->vms[0],
                               .described = 60,
                               .rounds = 2,
                               .opaque = rig};
    rig->destination = (QemuDestination){.device = rig->devices[1],
                                         .host = rig->host,
                                         .service = rig->service,
                                         .vm = &rig->vms[1],
                                         .described = 60,
                                         .opaque = rig};
}

void rig_await_last(Rig *rig)
{
    struct pollfd fd = {.fd = rig->source.link.send_channel->fd, .events = POLLIN};

    g_assert_cmpint(ibv_req_notify_cq(rig->source.link.send_cq, 0), ==, 0);
    g_assert_cmpint(poll(&fd, 1, 60000), ==, 1);
}

void rig_run(Rig *rig)
{
    GThread *destination;

    assert_true(qemu_destination_listen(&rig->destination));
    destination = g_thread_new("destination", qemu_destination_main, &rig->destination);
    qemu_source_main(&rig->source);
    if (!rig->source.gave && !rig->alone) { /* the destination may never have had a connection */
        g_atomic_int_set(&rig->destination.cancelled, 1);
    }
    g_thread_join(destination);
}

void rig_clear(Rig *rig)
{
    local_end_await();
    if (rig->source.returned) {
        g_byte_array_unref(rig->source.returned);
    }
    for (unsigned i = 0; i < 2; i++) {
        false_device_free(rig->devices[i]);
        small_vm_clear(&rig->vms[i]);
    }
}

void rig_assert_moved(Rig *rig)
{
    assert_true(rig->source.gave);
    assert_true(rig->destination.runs);
    for (unsigned i = 0; i < VM_BLOCKS; i++) {
        assert_memory_equal(rig->vms[0].blocks[i], rig->vms[1].blocks[i], vm_block_bytes[i]);
    }
}

void rig_assert_kept(Rig *rig)
{
    assert_false(rig->source.gave);
    assert_false(rig->destination.runs);
    assert_false(g_atomic_int_get(&rig->destination.got_eof));
}
