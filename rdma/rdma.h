/* SPDX-License-Identifier: BSD-2-Clause */
/* rdma.h -- the connection and channel objects of the rdma: transport */

#ifndef VMF_RDMA_H
#define VMF_RDMA_H

#include <vmferry/plugin/transport.h>
#include "chunks.h"
#include "discards.h"
#include "endpoint.h"
#include "nic.h"
#include "pinned.h"
#include "qemu-v1/v1-wire.h"
#include "writer.h"

/* Bytes of the longest control message; also the grain of the stream. */
#define CONTROL_MESSAGE_MAX (32u * 1024)

typedef enum {
    RDMA_REGISTRATION_CHUNK = 0,
    RDMA_REGISTRATION_PIN_ALL = 1,
    RDMA_REGISTRATION_ODP = 2
} RdmaRegistration;

/* What the URI's options say. */
typedef struct RdmaOptions {
    RdmaRegistration registration;
    uint64_t chunk_size;        /* 0: chosen */
    uint64_t accept_chunk_size; /* of a stock QEMU source; 0: chosen */
    uint64_t pin_budget;        /* 0: from the memory-lock limit */
    uint64_t gap;
    bool device_write;
    unsigned poll_us;
    unsigned connect_timeout_ms;
    unsigned timeout_ms;
} RdmaOptions;

typedef struct RdmaConn RdmaConn;
typedef struct V1 V1;

/* Source: a piece of device state that is being written, and so registered. */
#define DEVICE_PIECES 8
typedef struct DevicePiece {
    struct ibv_mr *mr;
    uint64_t request; /* done when the endpoint has completed that many */
    void *piece;      /* the engine's */
} DevicePiece;

/* A channel: one data queue pair and its one thread's state. */
typedef struct RdmaChannel {
    RdmaConn *conn;
    unsigned number;
    struct rdma_cm_id *id;
    Endpoint *ep;
    VmfChannelCounters *counters;

    /* Source. */
    Writer writer;
    DevicePiece pieces[DEVICE_PIECES]; /* ring, oldest first */
    unsigned piece_first, piece_count;

    /* Destination: the piece of device state that is arriving in messages. */
    uint8_t *device_at;
    uint64_t device_left;
    GArray *zero_waiting; /* destination: see zero-ranges.h; or NULL */
    int discards_seen;    /* destination: discards.any when they were last looked at */
    gint64 alive_told;    /* destination: when a sign of life was sent last, see serve_alive */
} RdmaChannel;

struct RdmaConn {
    VmfConn base; /* first: the engine sees this */
    RdmaOptions options;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id; /* of the control connection */
    Nic *nic;              /* its device */
    /*
     * The protection domains. The kernel's connection manager lets the peer write by every queue
     * pair, so the one that guest RAM and device memory are registered in is joined by the queue
     * pairs alone that `revoke' takes down. Control connection and return path live on.
     */
    struct ibv_pd *pd;      /* of these: nothing is registered in it that can be written */
    struct ibv_pd *data_pd; /* of the others; NULL as long as there is none, and with `pinned' */
    Pinned *pinned;         /* destination: RAM that was registered ahead, in a domain of its own */
    Endpoint *control;
    EndpointMessage control_message; /* handed out by control_receive, not yet given back */
    bool control_message_out;
    gint64 heard_at; /* atomic: when the peer last said something on the control connection */
    gint64 channel_closed_at; /* control thread: when the peer closed a channel in use; 0: not */

    struct RdmaListener
        *listener; /* destination: where the channels arrive; valid in accept only */
    RdmaChannel *channels[VMF_CHANNELS_MAX];

    WireParameters own, peer;
    bool odp;      /* the device can, on this side */
    Chunks chunks; /* registration state of both roles */
    Discards discards;
    Chunks *stripes; /* source, atomic: registered anew with pin-all, see discards.c; or NULL */
    uint8_t **zero_marks; /* source, a block each: pages that the destination was told are zero */
    int revoke_fd;        /* destination: wakes serve */
    int revoked;          /* atomic */
    struct ibv_mr *device_mr; /* destination: memory that device state is written into, or NULL */
    WireMemory device_remote; /* source: the same; bytes is 0 if there is none */

    V1 *v1; /* what a connection with stock QEMU has besides; or NULL */

    /* What control_message brings to the source and ram_setup waits for. */
    GMutex setup_lock;
    GCond setup_cond;
    GArray *addresses, *rkeys; /* of uint64_t */
};

/* --- setup.c --- */
bool options_from_uri(const VmfUri *uri, RdmaOptions *options, GError **error);
size_t setup_get_parameters(VmfConn *conn, uint8_t buffer[64]);
bool setup_peer_parameters(VmfConn *conn, const uint8_t *buffer, size_t size, GError **error);
unsigned setup_default_channels(VmfConn *conn);
/* What may be pinned besides the control connection's buffers; 0: as much as one likes. */
uint64_t setup_own_budget(const RdmaConn *conn);
bool setup_ram(VmfConn *conn, GError **error);
bool setup_control_message(VmfConn *conn, unsigned type, const uint8_t *data, size_t size,
                           GError **error);
/* Message size on a channel with that many of them: the same on both sides. */
size_t channel_slot_bytes(unsigned channels);
#define CHANNEL_REPLY_BYTES 1024

/* --- connection.c --- */
/* An empty connection with its event channel; NULL with *error. */
RdmaConn *conn_new(const RdmaOptions *options, VmfRole role, GError **error);
VmfConn *conn_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                      GError **error);
bool conn_open_channels(VmfConn *conn, GError **error);
void conn_close(VmfConn *conn);
/* The control connection is on this id, and the connection owns it from here on, if true. */
bool conn_own_id(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/*
 * Source: one more connection to where the first one went, with private data,
 * and an event channel of its own. Returns the id, and its endpoint in *ep; NULL with *error.
 */
struct rdma_cm_id *conn_connect_again(RdmaConn *conn, struct rdma_event_channel *events,
                                      const EndpointLimits *limits, const char *name,
                                      const void *data, size_t size, gint64 deadline, Endpoint **ep,
                                      GError **error);
/* Makes the endpoint of the control connection or of a channel on an id. */
Endpoint *conn_control_endpoint(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
/* The same on any connection, with limits of its own; `data': by it, RAM may be written. */
Endpoint *conn_endpoint(RdmaConn *conn, struct rdma_cm_id *id, bool data,
                        const EndpointLimits *limits, const char *name, GError **error);
RdmaChannel *channel_new(RdmaConn *conn, unsigned number, struct rdma_cm_id *id, GError **error);
void channel_free(RdmaChannel *channel);
/* --- listener.c --- */
VmfTransportListener *listener_listen(const VmfUri *uri, GError **error);
char *listener_address(VmfTransportListener *listener);
VmfConn *listener_accept(VmfTransportListener *listener, GCancellable *cancel, GError **error);
void listener_free(VmfTransportListener *listener);
/* Waits until every channel of conn has connected. */
bool listener_await_channels(RdmaConn *conn, GError **error);
/*
 * While the first message of a stock QEMU is awaited: its descriptor is readable
 * when something asks to be let in, and then it has its turn. This is how a return path comes.
 */
int listener_fd(const struct RdmaListener *listener);
bool listener_turn(RdmaConn *conn, GError **error);
void listener_ram(VmfTransportListener *listener, VmfRamBlocks *blocks);

/* --- control.c --- */
VmfControlResult control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                              GError **error);
VmfControlResult control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                 GError **error);
bool control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms, GError **error);

/* --- source.c --- */
extern const WriterDialect native_writer_dialect;
bool source_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                     uint64_t length, GError **error);
bool source_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                      uint64_t length, GError **error);
bool source_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
bool source_kick(VmfConn *conn, unsigned channel, GError **error);
bool source_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

/* --- v1-*.c: see v1.h --- */
extern const WriterDialect v1_writer_dialect;

/* --- device.c --- */
bool piece_send(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, const void *data,
                void *piece, GError **error);
bool piece_offer_memory(VmfConn *conn, void *memory, size_t bytes, GError **error);
/* Source: gives back the pieces that are written. The channel's thread. */
void piece_reap(RdmaChannel *channel);
/* Source: the queue pair is gone. */
void piece_clear(RdmaChannel *channel);
/* Source: a WIRE_PRIVATE_DEVICE_MEMORY came. */
bool piece_take_memory(RdmaConn *conn, const uint8_t *data, size_t size, GError **error);
/* Destination: the three kinds of messages. */
bool piece_receive_first(RdmaChannel *channel, const EndpointMessage *message, GError **error);
bool piece_receive_more(RdmaChannel *channel, const EndpointMessage *message, GError **error);
bool piece_receive_written(RdmaChannel *channel, const EndpointMessage *message, GError **error);

/* --- raw.c --- */
bool raw_write(VmfConn *conn, unsigned channel, uint64_t message_size, uint64_t bytes,
               double *seconds, GError **error);

/* --- serve.c --- */
bool serve_channel(VmfConn *conn, unsigned channel, GError **error);
/* The most that is zeroed between two looks at whether to go on. */
#define SERVE_PART_BYTES (64u << 20)
/*
 * Between two parts of a message's work, which may take long: false with *error when the session
 * is cancelled or revoked. Shows the source, once in a heartbeat, that this side is at work.
 */
bool serve_alive(RdmaChannel *channel, GError **error);
/* The same without the sign. */
bool serve_is_over(RdmaConn *conn, GError **error);
/* Always false, with an error that says what is wrong with a message of this channel's. */
bool serve_refused(RdmaChannel *channel, GError **error, const char *what);
bool serve_revoke(VmfConn *conn, GError **error);

/* Where the data queue pairs are, and the memory that they write. */
static inline struct ibv_pd *conn_data_pd(const RdmaConn *conn)
{
    return conn->pinned ? pinned_pd(conn->pinned) : conn->data_pd;
}

static inline RdmaConn *conn_of(VmfConn *conn)
{
    return (RdmaConn *)conn; /* base is the first member */
}

#endif
