/* SPDX-License-Identifier: BSD-2-Clause */
/* loopback-device.h -- a false RDMA device whose peers are ids of the same process */

#ifndef VMF_TESTS_LOOPBACK_DEVICE_H
#define VMF_TESTS_LOOPBACK_DEVICE_H

#include <glib.h>
#include "false-verbs/false-calls.h"

/*
 * An id connects to the one that listens on the same service. Nobody has the node "nowhere". A
 * message completes when its receive takes it, and a write at once unless `hold' is set.
 */
typedef struct Loopback {
    FalseDevice *device;
    GMutex lock; /* all below, and all calls into the device */
    GPtrArray *listening;
    GQueue held; /* of struct ibv_qp, one for each write that is not completed */
    bool hold;
    unsigned queue_max;     /* how many writes may be held */
    int mr_error, qp_error; /* what registering and making a queue pair say */
    int connect_error;      /* what connecting and listening say */
    unsigned ids_destroyed, qps, mrs;
} Loopback;

Loopback *loopback_new(void);
/* Asserts that no object is left. */
void loopback_free(Loopback *loopback);
/* Completes so many of the held writes. */
void loopback_release(Loopback *loopback, unsigned count);

#endif
