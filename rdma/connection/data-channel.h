/* SPDX-License-Identifier: BSD-2-Clause */
/* data-channel.h -- making a channel and ending it */

#ifndef VMF_RDMA_DATA_CHANNEL_H
#define VMF_RDMA_DATA_CHANNEL_H

#include "rdma-conn.h"

/* Bytes of a message that a destination sends on a channel. */
#define CHANNEL_REPLY_BYTES 1024
/*
 * Bytes of a message that a source sends, on a connection with that many channels. Both sides
 * compute the same.
 */
size_t channel_slot_bytes(unsigned channels);

/*
 * A channel between two vmferrys on `id', which the channel owns then. NULL with *error: the caller
 * still owns the id.
 */
RdmaChannel *channel_new(RdmaConn *conn, unsigned number, struct rdma_cm_id *id, GError **error);
/* Makes the source's state of a channel. The channel has its endpoint already. */
void channel_init_source(RdmaChannel *channel, const ChannelDialect *dialect);
/* Ends the connection of the channel, which tells the peer. NULL is allowed, and a second call. */
void channel_take_down(RdmaChannel *channel);
/* Takes the channel down, and frees it with all that it owns. NULL is allowed. */
void channel_free(RdmaChannel *channel);

#endif
