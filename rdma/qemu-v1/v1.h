/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1.h -- a connection with stock QEMU: its rdma: protocol, version 1
 *
 *   v1-wire.c         messages, encoded and decoded
 *   v1-link.c         the one queue pair: messages, READY, whether the peer is there, the end
 *   v1-source.c       this side is the source
 *   v1-destination.c  this side is the destination
 *   v1-regions.c      what the destination registers for the source's chunks
 *   v1-back.c         the return path, a connection of its own with a thread of its own
 *
 * RAM goes by the same writer and the same registrar as between two vmferrys;
 * v1-source.c only spells their requests otherwise. Everything is one thread's:
 * channel 0's, or the session's before that runs, but for the return path.
 */
#ifndef VMF_RDMA_V1_H
#define VMF_RDMA_V1_H

#include "rdma.h"
#include "v1-regions.h"

/* A peer that is there, but says nothing for so long, is given up. It may be pinning memory. */
#define V1_SILENCE_US (10 * 60 * G_TIME_SPAN_SECOND)

struct V1 {
    bool pin_all;
    bool peer_failed;  /* it has said ERROR: it need not be told */
    bool hung_up;      /* its DISCONNECTED has come */
    bool hooked;       /* messages are RAM's, not the stream's */
    bool blocks_known; /* RAM_BLOCKS_RESULT has come, or was sent */
    gint64 last_heard;
    int greeted;    /* atomic: READY has come once */
    uint64_t probe; /* outstanding if the endpoint has not completed that many requests */
    gint64 probed_at;

    /* Source. */
    bool ready; /* D has said READY: one message may be sent */
    bool blocks_asked;
    uint64_t *offsets; /* of each block, in D's address space */
    uint8_t *stage;    /* V1_MESSAGE_MAX bytes: a QEMU_FILE message that grows until it goes */
    struct ibv_mr *stage_mr;
    size_t staged;        /* bytes in it, the header not counted */
    gint64 staged_at;     /* when the last came */
    uint64_t stage_until; /* it may be written again when that many requests are completed */

    /* Destination. */
    /* The first message, taken to see whether the peer is in earnest, until it is handled. */
    const uint8_t *message;
    unsigned message_slot;
    size_t message_size;
    uint64_t *starts;   /* of each block, in the address space that this side names to S */
    V1Regions *regions; /* not with pin-all */

    /* The return path. */
    struct rdma_event_channel *back_events;
    bool back_ready; /* destination: S has said READY on it */
};

/* --- v1-link.c --- */
extern const VmfTransport v1_transport;
/* Source: stock QEMU has answered. */
bool v1_connected(RdmaConn *conn, const V1Capabilities *reply, GError **error);
/* Destination: stock QEMU asks to be let in; the reply, and the endpoint for it. */
void v1_reply(const V1Capabilities *request, uint8_t out[V1_CAPABILITIES_BYTES]);
Endpoint *v1_accept(RdmaConn *conn, struct rdma_cm_id *id, const V1Capabilities *request,
                    GError **error);
void v1_free(V1 *v1);
/* Source: undoes v1_connected(), before another address is tried. */
void v1_forget(RdmaConn *conn);

/* The body of the message that v1_send posts; NULL while every slot is in use. */
uint8_t *v1_body(RdmaChannel *channel);
bool v1_send(RdmaChannel *channel, V1Type type, unsigned repeat, size_t body_size, GError **error);
/*
 * The next message, its header checked; *body is NULL when there is none. ERROR
 * is made an error. Give it back by endpoint_give_back.
 */
bool v1_take(RdmaChannel *channel, V1Header *header, const uint8_t **body, size_t *size,
             unsigned *slot, GError **error);
/* Always false, with a VMF_ERROR_PROTOCOL that names the message. */
bool v1_refuse(RdmaChannel *channel, unsigned type, GError **error, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
/* Posts a write of nothing, which the peer's device answers, and the peer does not see. */
bool v1_probe(RdmaChannel *channel, GError **error);
bool v1_post_empty_write(RdmaChannel *channel, GError **error);
bool v1_take_events(RdmaChannel *channel, GError **error);

/* --- v1-source.c --- */
bool v1_source_setup(RdmaConn *conn, GError **error);
bool v1_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset, uint64_t length,
                 GError **error);
bool v1_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset, uint64_t length,
                  GError **error);
bool v1_send_stream(VmfConn *conn, unsigned channel, const uint8_t *data, size_t size, bool hook,
                    GError **error);
bool v1_send_sync(VmfConn *conn, unsigned channel, uint64_t number, bool drain, GError **error);
bool v1_wait(VmfConn *conn, unsigned channel, int wake_fd, GError **error);

/* --- v1-destination.c --- */
/* Waits for the first message, which tells whether the peer means to migrate. */
bool v1_await_stream(RdmaConn *conn, GError **error);
bool v1_serve(VmfConn *conn, unsigned channel, GError **error);

/* --- v1-back.c --- */
bool v1_open_back(VmfConn *conn, GError **error);
/* Destination: a second connection of the source's; and its events, when the listener is left. */
bool v1_accept_back(RdmaConn *conn, struct rdma_cm_id *id, GError **error);
bool v1_adopt_back(RdmaConn *conn, GError **error);
bool v1_serve_back(RdmaConn *conn, GError **error);
bool v1_send_back(RdmaConn *conn, const uint8_t *data, size_t size, GError **error);
bool v1_wait_back(RdmaConn *conn, int wake_fd, GError **error);

#endif
