/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-link.h -- one connection of a program that speaks the RDMA protocol as QEMU does */

#ifndef VMF_TESTS_QEMU_LINK_H
#define VMF_TESTS_QEMU_LINK_H

#include "false-verbs/false-calls.h"
#include "qemu-v1/v1-wire.h"

/* Ids of requests, as migration/rdma.c has them. */
#define LINK_TYPE_MASK 0xffffull
enum { LINK_NONE = 0, LINK_WRITE = 1, LINK_SEND = 2000, LINK_RECV = 4000 };
/* Buffers, and so receives. */
enum { LINK_READY = 0, LINK_DATA = 1, LINK_CONTROL = 2, LINK_BUFFERS = 3 };
#define LINK_SENDS 512

typedef struct QemuLink QemuLink;
struct QemuLink {
    FalseDevice *device;
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    bool shares_channel, connected;
    struct ibv_pd *pd;
    struct ibv_comp_channel *recv_channel, *send_channel;
    struct ibv_cq *recv_cq, *send_cq;
    struct ibv_qp *qp;
    uint8_t *buffers[LINK_BUFFERS];
    struct ibv_mr *mrs[LINK_BUFFERS];
    bool ready_expected;
    bool failed;         /* QEMU's error_state */
    gint cancelled;      /* atomic: every wait ends */
    unsigned writes;     /* that are not complete yet */
    V1Header header;     /* of the last message */
    const uint8_t *body; /* of the last message */
    size_t size;
    /* A connection request that comes in a wait. NULL: QEMU does not look at it. */
    void (*requested)(QemuLink *link, struct rdma_cm_id *id);
    void *owner;
    struct rdma_cm_id *stray; /* of a request that QEMU does not look at */
};

/* --- beginning; false: the connection did not come about --- */

void link_init(QemuLink *link, FalseDevice *device);
/* An id with a route, and everything that a queue pair needs. */
void link_resolve(QemuLink *link, const char *host, const char *port);
/* *pin_all: what is asked for, and then what the answer says. */
bool link_connect(QemuLink *link, bool *pin_all);
/* A request that came by the channel of `listening'. */
void link_adopt(QemuLink *link, struct rdma_event_channel *channel, struct rdma_cm_id *id);
bool link_accept(QemuLink *link);

/* --- messages; false: the link has failed --- */

bool link_post_receive(QemuLink *link, unsigned buffer);
/* Posts a message and does not wait. */
bool link_post_message(QemuLink *link, V1Type type, uint32_t repeat, const void *body, size_t size);
/* Waits for a completion. */
bool link_await(QemuLink *link, uint64_t wr_id, uint32_t *length);
/* A whole message, whoever's turn it is. */
bool link_send(QemuLink *link, V1Type type, uint32_t repeat, const void *body, size_t size);
/* Everything of the next one but the wait for the completion of the message. */
bool link_begin_exchange(QemuLink *link, V1Type type, const void *body, size_t size, bool answered);
/* Waits for READY, and sends. */
bool link_exchange(QemuLink *link, V1Type type, const void *body, size_t size);
/* The same, and the answer. `meanwhile' is called while it is on its way. */
bool link_ask(QemuLink *link, V1Type type, const void *body, size_t size, V1Type answer,
              bool (*meanwhile)(void *opaque), void *opaque);
/* Says READY, and waits for a message. */
bool link_receive(QemuLink *link);

/* An RDMA write. The number is the chunk's. */
bool link_write(QemuLink *link, const void *memory, uint32_t length, uint32_t lkey, uint64_t remote,
                uint64_t number);
/* Waits for all writes. */
bool link_drain(QemuLink *link);
/* Takes what has completed, without a wait. */
bool link_look(QemuLink *link);

/* --- end --- */

typedef enum {
    LINK_GIVES_UP, /* ERROR, and the end */
    LINK_LEAVES,   /* the end */
    LINK_VANISHES, /* the end without a disconnection */
} LinkEnd;
/* Ends everything in QEMU's order. */
void link_end(QemuLink *link, LinkEnd how);

#endif
