/* SPDX-License-Identifier: BSD-2-Clause */
/* rdma-conn.h -- what a connection of the rdma: transport and its channels are made of */

#ifndef VMF_RDMA_RDMA_CONN_H
#define VMF_RDMA_RDMA_CONN_H

#include <vmferry/plugin/transport.h>
#include "source/channel-dialect.h"
#include "verbs/chunks.h"
#include "discards.h"
#include "verbs/endpoint.h"
#include "verbs/endpoint-messages.h"
#include "verbs/nic.h"
#include "destination/piece-destination.h"
#include "source/piece-source.h"
#include "verbs/pinned.h"
#include "connection/rdma-options.h"
#include "source/registrar.h"
#include "wire.h"
#include "source/write-queue.h"
#include "source/zero-log.h"

/*
 * State that several files share is here. The functions that work on it are in those files. Each
 * part that has one owner is a structure of its own, in the owner's header.
 */

/* Bytes of the longest control message. It is also the grain of the stream. */
#define CONTROL_MESSAGE_MAX (32u * 1024)

typedef struct RdmaConn RdmaConn;
struct RdmaListener;
struct V1;

/* A channel: one data queue pair and its one thread's state. */
typedef struct RdmaChannel {
    RdmaConn *conn;
    unsigned number;
    struct rdma_cm_id *id; /* owned; NULL where the channel uses the connection's id */
    Endpoint *ep;
    VmfChannelCounters *counters;

    /* Source. */
    const ChannelDialect *dialect;
    WriteQueue writes;
    Registrar registrar;
    ZeroLog zeros;
    PieceRing pieces;

    /* Destination. */
    ArrivingPiece piece;
    GArray *zero_waiting; /* see zero-ranges.h; or NULL */
    int discards_seen;    /* discards.any when this channel last looked at it */
    gint64 alive_told;    /* when a sign of life was sent last, see serve_alive */
} RdmaChannel;

struct RdmaConn {
    VmfConn base; /* first: the engine sees this */
    RdmaOptions options;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id; /* of the control connection */
    Nic *nic;              /* its device */
    /*
     * The protection domains. The kernel's connection manager lets the peer write by every queue
     * pair. So guest RAM and device memory have a domain of their own. The queue pairs in it are
     * those that `revoke' takes down. The control connection and the return path stay up, in the
     * other domain.
     */
    struct ibv_pd *pd;      /* control connection and return path; nothing the peer can write */
    struct ibv_pd *data_pd; /* of the channels; NULL until there is one, and with `pinned' */
    Pinned *pinned;         /* destination: RAM that was registered ahead, in a domain of its own */
    Endpoint *control;
    EndpointMessage control_message; /* handed out by control_receive, not yet given back */
    bool control_message_out;
    gint64 heard_at; /* atomic: when the peer last said something on the control connection */
    gint64 channel_closed_at; /* control thread: when the peer closed a channel in use; 0: not */

    /* Destination: the listener that its channels arrive at; NULL and -1 once none is awaited. */
    struct RdmaListener *listener;
    int listener_fd; /* readable when a connection asks to be let in */
    /* Lets the listener take one event. The return path of a stock QEMU arrives by it. */
    bool (*listener_turn)(RdmaConn *conn, GError **error);

    RdmaChannel *channels[VMF_CHANNELS_MAX];

    WireParameters own, peer;
    bool odp;      /* this side's device can do on-demand paging */
    Chunks chunks; /* registration state of both roles */
    Discards discards;
    Chunks *stripes;      /* source, atomic: stripes registered anew, see renewal.c; or NULL */
    uint8_t **zero_marks; /* source: pages that the destination was told are zero, see zero-log.h */
    int revoke_fd;        /* destination: wakes serve */
    int revoked;          /* atomic */
    struct ibv_mr *device_mr; /* destination: memory for the device state of the source; or NULL */
    WireMemory device_remote; /* source: that memory of the peer; bytes is 0 if there is none */

    struct V1 *v1; /* what only a connection with stock QEMU has; or NULL */

    /* setup_control_message fills these on the source, and setup_ram waits for them. */
    GMutex setup_lock;
    GCond setup_cond;
    GArray *addresses, *rkeys; /* of uint64_t */
};

static inline RdmaConn *conn_of(VmfConn *base)
{
    return (RdmaConn *)base; /* base is the first member */
}

/* The protection domain of the data queue pairs and of the memory that they write. */
static inline struct ibv_pd *conn_data_pd(const RdmaConn *conn)
{
    return conn->pinned ? pinned_pd(conn->pinned) : conn->data_pd;
}

#endif
