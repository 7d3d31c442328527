/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-destination.h -- a program that takes a VM as QEMU does with RDMA */

#ifndef VMF_TESTS_QEMU_DESTINATION_H
#define VMF_TESTS_QEMU_DESTINATION_H

#include "qemu-link.h"
#include "small-vm.h"

/* What has just happened. */
typedef enum {
    DESTINATION_REQUESTED, /* a connection, which is not accepted yet */
    DESTINATION_ACCEPTED,
    DESTINATION_BEGUN, /* the beginning of the stream is read */
    DESTINATION_HOOK,  /* the first hook */
    DESTINATION_ASKED, /* for its blocks */
    DESTINATION_NAMED, /* it has answered */
    DESTINATION_ROUND, /* the first round of RAM is here */
    DESTINATION_RAM_ENDED,
    DESTINATION_LOADED, /* all devices; it has not asked for more */
    DESTINATION_EOF,    /* the byte EOF: the VM will run here */
} DestinationStep;
#define DESTINATION_STEPS (DESTINATION_EOF + 1)

typedef struct QemuDestination {
    FalseDevice *device;
    const char *host, *service;
    SmallVm *vm;
    bool return_path;
    bool acknowledges; /* that the VM may be stopped, as soon as there is a return path */
    size_t described;
    bool (*at)(void *opaque, DestinationStep step);
    void *opaque;
    LinkEnd end;

    bool runs;      /* QEMU's migration is complete, so the VM runs here */
    gint got_eof;   /* atomic */
    gint cancelled; /* atomic: it waits for a connection no more */

    /* Its own. */
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listening;
    QemuLink link, back;
    GByteArray *in;
    size_t taken;
    unsigned listed[VM_BLOCKS]; /* the source's order of this side's blocks */
    bool named;
} QemuDestination;

/* Listens. false: it cannot. */
bool qemu_destination_listen(QemuDestination *d);
/* Takes a VM. Returns when everything of it is destroyed. */
void *qemu_destination_main(void *destination);
/* Destroys everything of one that only listens. */
void qemu_destination_end(QemuDestination *d);

#endif
