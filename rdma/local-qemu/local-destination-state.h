/* SPDX-License-Identifier: BSD-2-Clause */
/* local-destination-state.h -- what a migration to this process's QEMU consists of */

#ifndef VMF_RDMA_LOCAL_DESTINATION_STATE_H
#define VMF_RDMA_LOCAL_DESTINATION_STATE_H

#include <vmferry/qemu-stream.h>
#include <vmferry/qemu.h>
#include <vmferry/vmferry.h>
#include "local-link.h"

typedef struct LocalDestination {
    struct rdma_cm_id *listening; /* fixed */
    VmfSession *session;          /* the feeder's, like the next four */
    VmfFile *file;
    VmfRamBlocks *blocks;
    VmfQemuStream *stream;
    bool named;
    bool return_path; /* fixed after the greeting */
    GThread *feeder;

    GMutex lock; /* guards what follows */
    GCond changed;
    LocalLink *link;    /* NULL after QEMU has destroyed it */
    unsigned ready;     /* messages that QEMU may get */
    GBytes *reply;      /* QEMU's last RAM_BLOCKS_RESULT, until it is taken */
    bool gone;          /* QEMU has disconnected, or failed */
    bool said_error;    /* QEMU has failed */
    LocalLink *back;    /* the return path; NULL before and after */
    VmfFile *back_file; /* QEMU's thread of the return path */
} LocalDestination;

#endif
