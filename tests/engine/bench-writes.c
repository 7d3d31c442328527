/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-writes.c -- what an RDMA write of QEMU costs QEMU's thread: posted and polled */

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "engine-rig.h"

#define WRITES 200000u

static double seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* QEMU looks for completions after each page. */
static void measure(QemuLink *link, SmallVm *vm, uint64_t remote, const char *what)
{
    struct ibv_mr *mr =
        false_reg_mr(link->pd, vm->blocks[0], vm_block_bytes[0], IBV_ACCESS_LOCAL_WRITE);
    double wall, cpu;

    for (unsigned warm = 0; warm < 2; warm++) {
        wall = seconds(CLOCK_MONOTONIC);
        cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
        for (unsigned i = 0; i < WRITES; i++) {
            /* No two pages that could be one range. */
            const uint64_t page = (uint64_t)i * 5 % (vm_block_bytes[0] / VM_PAGE) * VM_PAGE;

            if (!link_write(link, vm->blocks[0] + page, VM_PAGE, mr->lkey, remote + page, i) ||
                !link_look(link)) {
                g_error("%s: the writes failed", what);
            }
        }
    }
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    g_print("%-28s %7.0f ns a write, %7.0f ns of its thread\n", what, wall * 1e9 / WRITES,
            cpu * 1e9 / WRITES);
    g_assert_cmpint(false_dereg_mr(mr), ==, 0);
}

/* --- the device alone --- */

static int connect_at_once(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    (void)opaque;
    false_id_established(id, param);
    return 0;
}

static int complete_at_once(void *opaque, struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    (void)opaque;
    return false_qp_complete_send(qp, wr->wr_id, IBV_WC_SUCCESS) ? 0 : EINVAL;
}

static void measure_device(void)
{
    static const FalseDeviceOps ops = {
        .size = sizeof(ops), .connect = connect_at_once, .post_send = complete_at_once};
    FalseDevice *device = false_device_new("bench", &ops, NULL);
    bool pin_all = false;
    QemuLink link;
    SmallVm vm;

    small_vm_init(&vm, true);
    link_init(&link, device);
    link_resolve(&link, "192.0.2.1", "1");
    g_assert_true(link_connect(&link, &pin_all));
    measure(&link, &vm, 0, "the device alone");
    link_end(&link, LINK_LEAVES);
    false_device_free(device);
    small_vm_clear(&vm);
}

/* --- a migration --- */

static bool measure_there(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step == SOURCE_ROUND && rig->source.round == 0) {
        measure(&rig->source.link, &rig->vms[0], rig->source.remote[0], "a migration over unix:");
    }
    return true;
}

int main(void)
{
    Rig rig;

    measure_device();
    if (rig_set_up_group(NULL)) {
        return EXIT_FAILURE;
    }
    rig_init(&rig);
    rig.source.at = measure_there;
    rig_run(&rig);
    rig_assert_moved(&rig);
    rig_clear(&rig);
    (void)rig_tear_down_group(NULL);
    return EXIT_SUCCESS;
}
