/* SPDX-License-Identifier: BSD-2-Clause */
/* local-link.h -- one connection of this process's QEMU with its false device */

#ifndef VMF_RDMA_LOCAL_LINK_H
#define VMF_RDMA_LOCAL_LINK_H

#include <glib.h>
#include "false-verbs/false-backend.h"
#include "qemu-v1/v1-wire.h"

/*
 * QEMU's migration speaks its protocol with the false device, and a link is one of its connections:
 * that of a migration, or its return path. What is on the other end is told by a table.
 */
typedef struct LocalLink LocalLink;

/* One message of QEMU's, and how its request is answered. */
typedef struct LocalMessage {
    V1Header header;
    const uint8_t *body; /* valid during the call */
    size_t size;
    uint64_t wr_id;
} LocalMessage;

typedef enum {
    LOCAL_DONE,  /* the request is complete */
    LOCAL_LATER, /* local_link_complete() follows, with wr_id */
    LOCAL_FAILED /* QEMU hears an error */
} LocalAnswer;

/*
 * QEMU's thread that uses the link makes the calls, one at a time, except `closed'. NULL: nothing
 * is done.
 */
typedef struct LocalLinkOps {
    LocalAnswer (*said)(LocalLink *link, const LocalMessage *message);
    /* An RDMA write of `size' bytes from `local' to the address `remote'. */
    bool (*wrote)(LocalLink *link, uint8_t *local, uint64_t remote, size_t size);
    /* QEMU has registered memory. */
    void (*registered)(LocalLink *link, const struct ibv_mr *mr);
    /* QEMU gets this completion now, and may still get another status in its place. */
    void (*polled)(LocalLink *link, struct ibv_wc *wc);
    void (*accepted)(LocalLink *link);
    /* QEMU disconnects. */
    void (*disconnected)(LocalLink *link);
    /*
     * QEMU has destroyed the id. The link is freed when it returns, so no other thread may use it
     * any more. Any thread of QEMU's.
     */
    void (*closed)(LocalLink *link);
} LocalLinkOps;

struct LocalLink {
    const LocalLinkOps *ops; /* fixed, like the next two */
    void *owner;
    GMutex lock;
    struct rdma_cm_id *id; /* lock: NULL until QEMU accepts; then fixed */
    struct ibv_qp *qp;     /* lock: NULL after QEMU has destroyed it */
    GQueue waiting;        /* lock: GBytes for which QEMU has posted no receive yet */
};

/*
 * The link of an id, which remembers it, and of the queue pair that the id has by now. `id' is NULL
 * for a link that is offered to QEMU: QEMU's accepting sets it.
 */
LocalLink *local_link_new(const LocalLinkOps *ops, void *owner, struct rdma_cm_id *id);
void local_link_free(LocalLink *link);

/* Sends QEMU a message. The body is copied. It waits for a receive, if need be. Any thread. */
void local_link_say(LocalLink *link, V1Type type, uint32_t repeat, const void *body, size_t size);
/* Completes a request that was answered with LOCAL_LATER. Any thread. */
void local_link_complete(LocalLink *link, uint64_t wr_id, bool ok);
/*
 * The connection is lost, as QEMU sees it: all that it waits for ends with an error. It does
 * nothing to a link that QEMU has not accepted. Any thread.
 */
void local_link_break(LocalLink *link);

/* --- for the device's table --- */

/* QEMU accepts a link that was offered to it. */
void local_link_accepted(LocalLink *link, struct rdma_cm_id *id);
void local_link_set_qp(LocalLink *link, struct ibv_qp *qp);
void local_link_receive_posted(LocalLink *link);
/* Tells the link whose queue pair is of the region's domain. */
void local_link_registered(const struct ibv_mr *mr);
int local_link_post(LocalLink *link, struct ibv_qp *qp, const struct ibv_send_wr *wr);

#endif
