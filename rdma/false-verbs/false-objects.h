/* SPDX-License-Identifier: BSD-2-Clause */
/* false-objects.h -- the objects of a false RDMA device: each begins with its public structure */

#ifndef VMF_RDMA_FALSE_OBJECTS_H
#define VMF_RDMA_FALSE_OBJECTS_H

#include <glib.h>
#include "false-backend.h"
#include "false-calls.h"

struct FalseDevice {
    struct ibv_context context;
    struct ibv_device device;
    FalseDeviceOps ops; /* NULL where the backend's table ends */
    void *opaque;

    GMutex lock;           /* all below, and the members of all objects */
    GCond acknowledged;    /* an event was acknowledged: whoever destroys its object looks again */
    GHashTable *channels;  /* a set of FalseChannel */
    GHashTable *addrinfos; /* a set of FalseAddrinfo */
    GHashTable *regions;   /* key -> FalseRegion */
    uint32_t last_key, last_qp;
};

typedef struct FalseAddrinfo {
    struct rdma_addrinfo info;
    struct sockaddr_storage address;
    char *node, *service;
} FalseAddrinfo;

typedef struct FalseChannel {
    struct rdma_event_channel channel;
    FalseDevice *device;
    GQueue events; /* of FalseEvent; the descriptor is readable while it has some */
    unsigned ids;
    bool closed; /* destroyed, but its ids are not */
} FalseChannel;

typedef enum FalseIdState {
    FALSE_ID_NEW,
    FALSE_ID_BOUND,
    FALSE_ID_LISTENING,
    FALSE_ID_ADDRESS_RESOLVED,
    FALSE_ID_ROUTE_RESOLVED,
    FALSE_ID_CONNECTING,
    FALSE_ID_REQUESTED, /* by a peer, and not answered yet */
    FALSE_ID_ACCEPTED,
    FALSE_ID_CONNECTED,
    FALSE_ID_DISCONNECTED,
    FALSE_ID_FAILED, /* a connection that did not come about */
} FalseIdState;

typedef struct FalseId {
    struct rdma_cm_id cm;
    FalseChannel *channel;
    char *node, *service;
    void *opaque; /* atomic: a backend looks for each request */
    FalseIdState state;
    bool dying;                      /* takes no more events */
    unsigned reported, acknowledged; /* events that the program has read, and given back */
} FalseId;

typedef struct FalseEvent {
    struct rdma_cm_event event;
    FalseId *owner; /* waits for its acknowledgement: of a request the listening id */
    int (*abandon)(
        struct rdma_cm_id *id); /* for the id of a request that nobody can read; or NULL */
    /* Zeros follow the data, because programs copy what they expect without a look at the size. */
    uint8_t data[UINT8_MAX + 1];
} FalseEvent;

typedef struct FalsePd {
    struct ibv_pd pd;
    unsigned users; /* regions and queue pairs */
} FalsePd;

typedef struct FalseRegion {
    struct ibv_mr mr;
    uint64_t iova; /* the address that requests have for the first byte */
    unsigned access;
} FalseRegion;

typedef struct FalseCompChannel {
    struct ibv_comp_channel channel;
    GQueue events; /* of FalseCq; the descriptor is readable while it has some */
} FalseCompChannel;

typedef enum FalseArmed {
    FALSE_ARMED_NOT,
    FALSE_ARMED_SOLICITED,
    FALSE_ARMED_ANY,
} FalseArmed;

typedef struct FalseCq {
    struct ibv_cq cq;
    FalseCompChannel *channel;
    GQueue completions; /* of FalseRequest: the program can poll them */
    unsigned waiting;   /* how many these are; atomic, written under the lock */
    FalseArmed armed;
    unsigned users;                  /* sides of queue pairs */
    unsigned reported, acknowledged; /* events, as in FalseId */
} FalseCq;

/*
 * One of a queue pair's requests. All exist from the beginning, because QEMU posts very many. Each
 * is in one queue: idle, then of its queue pair, then of a completion queue, then idle.
 */
typedef struct FalseRequest {
    GList link; /* its data is the request */
    struct FalseQp *qp;
    GQueue *idle;         /* where it goes when the program has polled it */
    struct ibv_wc wc;     /* wr_id, opcode and length from the beginning */
    uint64_t serial;      /* of a send */
    bool signaled;        /* of a send */
    int count;            /* of a receive */
    struct ibv_sge *sges; /* of a receive */
} FalseRequest;

/* Requests of one direction: as many as the program asked for. */
typedef struct FalseRequests {
    FalseRequest *all;
    struct ibv_sge *sges;
    GQueue idle;
    GQueue posted; /* sends: the backend has them; receives: no message yet */
} FalseRequests;

typedef struct FalseQp {
    struct ibv_qp qp; /* its state is INIT, RTS or ERR */
    FalseId *id;
    void *opaque;
    struct ibv_qp_cap cap;
    bool all_signaled;
    bool dying;
    FalseRequests sends, receives;
    uint64_t last_serial;
} FalseQp;

/* --- the object of a public structure --- */

static inline FalseDevice *device_of(struct ibv_context *context)
{
    return (FalseDevice *)context;
}

static inline FalseId *id_of(struct rdma_cm_id *id)
{
    return (FalseId *)id;
}

static inline FalseQp *qp_of(struct ibv_qp *qp)
{
    return (FalseQp *)qp;
}

static inline FalseCq *cq_of(struct ibv_cq *cq)
{
    return (FalseCq *)cq;
}

static inline FalsePd *pd_of(struct ibv_pd *pd)
{
    return (FalsePd *)pd;
}

/* --- what the objects do for each other --- */

/* Host and port of an address that the program gives: as it wrote them, or else in digits. */
void address_names_locked(FalseDevice *device, const struct sockaddr *address, char **node,
                          char **service);

/* Queues an event, and owns it from then on. It is dropped if nobody can read it any more. */
void channel_post_locked(FalseChannel *channel, FalseEvent *event);
/* Takes out what the id, or with NULL anybody, has not read yet: for channel_abandon(). */
GList *channel_discard_locked(FalseChannel *channel, const FalseId *id);
/* Frees such events, and destroys the ids of requests. Without the lock. */
void channel_abandon(GList *events);
/* An id of the channel is gone. It may have been the last of a channel that is destroyed. */
void channel_unref_locked(FalseChannel *channel);

/*
 * Appends a request, which is in no queue, and tells the completion channel if the program has
 * asked for that.
 */
void cq_complete_locked(FalseCq *cq, FalseRequest *request, bool solicited);
/* Forgets what is left of a queue pair. */
void cq_forget_locked(FalseCq *cq, const FalseQp *qp);

/* The operations of the context. */
int false_poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc);
int false_req_notify_cq(struct ibv_cq *cq, int solicited_only);
int false_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int false_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* Where an address of a registration lies. NULL: it does not cover that, or does not allow it. */
void *region_memory_locked(FalseQp *qp, uint32_t key, uint64_t address, uint64_t length,
                           unsigned access);

/* Everything on the queue pair completes as flushed, and so will whatever is posted later. */
void qp_fail_locked(FalseQp *qp);

#endif
