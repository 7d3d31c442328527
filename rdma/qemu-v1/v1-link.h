/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-link.h -- one queue pair with stock QEMU: messages, and whether the peer is there */

#ifndef VMF_RDMA_V1_LINK_H
#define VMF_RDMA_V1_LINK_H

#include "rdma-conn.h"
#include "v1-wire.h"

/*
 * A peer that is alive, but says nothing for so long, is given up. It may be busy pinning memory
 * until then.
 */
#define V1_SILENCE_US (10 * 60 * G_TIME_SPAN_SECOND)

/* The place for the body of the message that v1_send posts. NULL while every slot is in use. */
uint8_t *v1_body(RdmaChannel *channel);
/* Posts the message whose body is in v1_body. False with *error, also when every slot is in use. */
bool v1_send(RdmaChannel *channel, V1Type type, unsigned repeat, size_t body_size, GError **error);
/*
 * Takes the next message, and checks its header. *body is NULL when there is none. An ERROR of the
 * peer is an error here. The caller gives the slot back by endpoint_give_back.
 */
bool v1_take(RdmaChannel *channel, V1Header *header, const uint8_t **body, size_t *size,
             unsigned *slot, GError **error);
/* Always false. Sets a VMF_ERROR_PROTOCOL that names the message. */
bool v1_refuse(RdmaChannel *channel, unsigned type, GError **error, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
/*
 * Call it when a sleep brought nothing. Probes the peer at most once in a heartbeat. False with
 * *error if the peer is gone or silent for too long.
 */
bool v1_probe(RdmaChannel *channel, GError **error);
/*
 * Posts a write of no bytes. The device of the peer acknowledges it, and the peer itself does not
 * see it.
 */
bool v1_post_empty_write(RdmaChannel *channel, GError **error);
/*
 * Takes rdma_cm's events of the connection. A removed device is an error. The end of the peer is
 * noted in hung_up.
 */
bool v1_take_events(RdmaChannel *channel, GError **error);

#endif
