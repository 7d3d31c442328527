/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-source.h -- a program that migrates a VM away as QEMU does with RDMA */

#ifndef VMF_TESTS_QEMU_SOURCE_H
#define VMF_TESTS_QEMU_SOURCE_H

#include "qemu-link.h"
#include "small-vm.h"

/* What has just happened. */
typedef enum {
    SOURCE_CONNECTED,
    SOURCE_READY, /* with the return path, if there is one */
    SOURCE_BEGUN, /* the list of blocks, and the first hook */
    SOURCE_NAMED, /* the answer about the blocks */
    SOURCE_WROTE, /* some RAM */
    SOURCE_ROUND, /* a round */
    SOURCE_RAM_ENDED,
    SOURCE_DEVICES, /* all devices, without the byte EOF */
    SOURCE_LAST,    /* the last message is posted; QEMU has not looked for its completion */
    SOURCE_DONE,    /* the last message is complete */
} SourceStep;
#define SOURCE_STEPS (SOURCE_DONE + 1)

typedef struct QemuSource {
    FalseDevice *device;
    const char *host, *service;
    SmallVm *vm;
    bool pin_all, return_path;
    size_t described; /* bytes of the description; 0: there is none */
    unsigned rounds;
    bool idle;      /* the guest changes nothing after the first round */
    bool grows;     /* each round has all of RAM */
    unsigned round; /* of SOURCE_ROUND */
    /* false: QEMU gives up there. NULL: it never does. */
    bool (*at)(void *opaque, SourceStep step);
    void *opaque;
    LinkEnd end; /* how it ends if it does not succeed */

    bool connected;       /* the first connection came about */
    bool sent;            /* every message is complete */
    bool gave;            /* QEMU's migration is complete, so the VM does not run here */
    gint last_taken;      /* atomic: it has seen the completion of the last message */
    GByteArray *returned; /* by the return path */
    gint shut;            /* atomic: SHUT has come */
    gint pong;            /* atomic: a PONG has come */
    gint acknowledged;    /* atomic: the VM may be stopped */
    bool back_failed;     /* the return path ended with an error */

    /* Its own. */
    QemuLink link, back;
    GByteArray *out;
    struct ibv_mr *pinned[VM_BLOCKS], *chunks[VM_BLOCKS][3];
    uint64_t remote[VM_BLOCKS], offsets[VM_BLOCKS];
    GThread *reader;
} QemuSource;

/* Migrates. Returns when everything of it is destroyed. The caller frees `returned'. */
void *qemu_source_main(void *source);

#endif
