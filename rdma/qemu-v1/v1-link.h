/* SPDX-License-Identifier: BSD-2-Clause */
/* v1-link.h -- one queue pair with stock QEMU: messages, and whether the peer is there */

#ifndef VMF_RDMA_V1_LINK_H
#define VMF_RDMA_V1_LINK_H

#include "conn.h"
#include "v1-wire.h"

/* A peer that is there, but says nothing for so long, is given up. It may be pinning memory. */
#define V1_SILENCE_US (10 * 60 * G_TIME_SPAN_SECOND)

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
/* A waking brought nothing: asks once in a heartbeat, false with *error if the peer is gone. */
bool v1_probe(RdmaChannel *channel, GError **error);
/* Posts a write of nothing, which the peer's device answers, and the peer does not see. */
bool v1_post_empty_write(RdmaChannel *channel, GError **error);
/* Takes the connection's events: a device that is gone is an error, the peer's end is noted. */
bool v1_take_events(RdmaChannel *channel, GError **error);

#endif
