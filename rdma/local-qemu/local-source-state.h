/* SPDX-License-Identifier: BSD-2-Clause */
/* local-source-state.h -- what a migration away from this process's QEMU consists of */

#ifndef VMF_RDMA_LOCAL_SOURCE_STATE_H
#define VMF_RDMA_LOCAL_SOURCE_STATE_H

#include <vmferry/qemu-stream.h>
#include <vmferry/qemu.h>
#include <vmferry/vmferry.h>
#include "local-link.h"

/* How the last send of the stream ends, which decides who runs the VM. */
typedef enum {
    GIVING_NOT,    /* the stream goes on */
    GIVING_LOADS,  /* all was sent; the destination loads it; QEMU waits */
    GIVING_LOADED, /* QEMU may go on; it has not looked yet */
    GIVING_NOW,    /* QEMU goes on: the VM is given away */
    GIVING_OVER,   /* it is given away, or never will be */
} Giving;

/* The passes that QEMU makes over RAM, see local-switchover.h. QEMU's migration thread. */
typedef struct LocalRounds {
    gint64 wait_us; /* 0: nothing is waited for any more */
    gint64 until;   /* monotonic; 0 in the first pass */
    unsigned block; /* where QEMU has written last */
    uint64_t offset;
    uint64_t bytes, before; /* of this pass, and of the one before it */
    bool wrote;             /* something, since QEMU has asked itself whether to go on */
    bool enough;            /* another pass would not be much smaller */
} LocalRounds;

typedef struct LocalSource {
    gatomicrefcount references; /* one for each of its links */
    struct rdma_cm_id *id;      /* fixed */
    bool pin_all;               /* fixed: QEMU's */
    GCancellable *cancel;
    GThread *connector;

    /* QEMU's migration thread, and after it whoever ends the session. */
    VmfSession *session; /* the connector makes it, before QEMU's thread goes on */
    VmfFile *file;
    VmfRamBlocks *blocks;
    VmfQemuStream *stream;
    unsigned hook_section; /* of the latest hook */
    GByteArray *rest;      /* the stream after RAM, as far as its end may lie in it */
    bool footers;          /* the stream's sections have them */
    bool greeted, named, failed, said_error;
    unsigned pinned; /* blocks that QEMU has registered as a whole */
    LocalRounds rounds;

    GMutex lock; /* guards what follows */
    GCond changed;
    LocalLink *link; /* QEMU's thread, too; NULL after QEMU has destroyed it */
    bool takes_back; /* QEMU may connect its return path now */
    Giving giving;
    uint64_t held; /* wr_id of the send that is held back */
    bool given_up; /* QEMU does not go on with the migration */
    GThread *giver;
    LocalLink *back; /* the return path */
    VmfFile *back_file;
    GThread *back_reader;
    bool back_inside; /* a message of the return path is told in part */
    struct {
        bool acknowledged; /* by the destination */
        bool allowed;      /* it is time */
        bool told;
    } switchover;
    unsigned back_ready; /* messages that QEMU may get on the return path */
    bool shut;           /* QEMU has got its last one */
    bool closing;
} LocalSource;

/* Without link, stream and threads. The reference is that of the link which the caller makes. */
LocalSource *local_source_new(struct rdma_cm_id *id, bool pin_all);
/* The session must be freed, and all threads joined, before the last one. */
void local_source_unref(LocalSource *s);

#endif
