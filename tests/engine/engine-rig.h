/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-rig.h -- two programs that migrate a VM as QEMU does, over the engine, in one process */

#ifndef VMF_TESTS_ENGINE_RIG_H
#define VMF_TESTS_ENGINE_RIG_H

#include "qemu-destination.h"
#include "qemu-source.h"

/*
 * A migration. Each side has a device of its own, as in its own process. A test changes the members
 * of both sides between rig_init() and rig_run().
 */
typedef struct Rig {
    FalseDevice *devices[2];
    SmallVm vms[2]; /* the source's, the destination's */
    QemuSource source;
    QemuDestination destination;
    char host[128], service[16];
    bool alone; /* the destination hears of the end of its connection, and ends by itself */
} Rig;

/* For cmocka_run_group_tests(): the transport. */
int rig_set_up_group(void **state);
int rig_tear_down_group(void **state);

void rig_init(Rig *rig);
/* Source, at SOURCE_LAST: the last message is complete, and nobody has looked yet. */
void rig_await_last(Rig *rig);
/* Both sides, until both have ended. */
void rig_run(Rig *rig);
/* Waits until the engine has ended its part, too, and frees everything. */
void rig_clear(Rig *rig);
/* The VM runs on the destination alone, with the source's RAM. */
void rig_assert_moved(Rig *rig);
/* The VM runs on the source alone. */
void rig_assert_kept(Rig *rig);

#endif
