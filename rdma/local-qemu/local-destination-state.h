/* SPDX-License-Identifier: BSD-2-Clause */
/* local-destination-state.h -- what a migration to this process's QEMU consists of */

#ifndef VMF_RDMA_LOCAL_DESTINATION_STATE_H
#define VMF_RDMA_LOCAL_DESTINATION_STATE_H

#include <vmferry/qemu-stream.h>
#include <vmferry/qemu.h>
#include <vmferry/vmferry.h>
#include "local-link.h"
#include "local-listening.h"

typedef struct LocalDestination {
    gatomicrefcount references; /* one for each of its links */
    LocalListening *listening;  /* fixed */
    VmfSession *session;        /* the feeder's, like the next four */
    VmfFile *file;
    VmfRamBlocks *blocks;
    VmfQemuStream *stream;
    bool named;
    bool return_path; /* fixed after the greeting, like the next one */
    bool no_hooks;    /* a hook is put into the stream for QEMU */
    GThread *feeder;

    GMutex lock; /* guards what follows */
    GCond changed;
    LocalLink *link;    /* NULL after QEMU has destroyed it */
    unsigned ready;     /* messages that QEMU may get */
    GBytes *reply;      /* QEMU's last RAM_BLOCKS_RESULT, until it is taken */
    bool gone;          /* QEMU has disconnected, or failed */
    bool said_error;    /* QEMU has failed */
    LocalLink *back;    /* the return path; NULL before and after */
    VmfFile *back_file; /* NULL after the session's end has begun */
    bool back_accepted; /* by QEMU */
    bool back_busy;     /* QEMU's thread is putting something into it */
} LocalDestination;

/* It owns the session. The reference is that of the link which the caller makes. */
LocalDestination *local_destination_new(LocalListening *listening, VmfSession *session,
                                        VmfRamBlocks *blocks);
/* The session must be freed before the last one. */
void local_destination_unref(LocalDestination *d);

#endif
