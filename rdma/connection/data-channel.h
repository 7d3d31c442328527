/* SPDX-License-Identifier: BSD-2-Clause */
/* data-channel.h -- making a channel and ending it */

#ifndef VMF_RDMA_DATA_CHANNEL_H
#define VMF_RDMA_DATA_CHANNEL_H

#include "conn.h"

/* Bytes of a message that a destination sends on a channel. */
#define CHANNEL_REPLY_BYTES 1024
/* Of one that a source sends, on a connection with that many channels: the same on both sides. */
size_t channel_slot_bytes(unsigned channels);

/* A channel between two vmferrys on `id', which it owns if it is not NULL. */
RdmaChannel *channel_new(RdmaConn *conn, unsigned number, struct rdma_cm_id *id, GError **error);
/* Makes the source's state of a channel that has its endpoint. */
void channel_init_source(RdmaChannel *channel, const ChannelDialect *dialect);
/* The peer hears of it by the connection's end. NULL is allowed, and a second call. */
void channel_take_down(RdmaChannel *channel);
/* NULL is allowed. */
void channel_free(RdmaChannel *channel);

#endif
