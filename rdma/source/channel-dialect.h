/* SPDX-License-Identifier: BSD-2-Clause */
/* channel-dialect.h -- what a source says on a channel besides its writes, and in which words */

#ifndef VMF_RDMA_CHANNEL_DIALECT_H
#define VMF_RDMA_CHANNEL_DIALECT_H

#include <stdbool.h>
#include <glib.h>
#include "wire.h"

struct RdmaChannel;

/*
 * Source: vmferry's own messages or stock QEMU's. All RAM goes by one write queue and one
 * registrar; the table is all that differs. The channel's thread calls it.
 */
typedef struct ChannelDialect {
    unsigned register_batch; /* chunks in one request, at most REGISTRAR_BATCH */
    unsigned requests_max;   /* requests unanswered, at most REGISTRAR_REQUESTS_MAX */
    bool nop_is_message;     /* a nop needs room for a message */
    bool local_evictions;    /* the destination keeps what it registered, and is not told */
    /* Whether a request can be sent now. */
    bool (*can_request)(const struct RdmaChannel *channel);
    bool (*send_request)(struct RdmaChannel *channel, const WireRegister *request, GError **error);
    /* Asks for nothing but to be completed after all that was posted before. */
    bool (*send_nop)(struct RdmaChannel *channel, GError **error);
    /* Takes what endpoint_poll found, answers what must be answered. */
    bool (*take_messages)(struct RdmaChannel *channel, GError **error);
    /* Sends zero ranges, if there are any, as far as that goes now without waiting. */
    bool (*post_zero)(struct RdmaChannel *channel, GError **error);
    /* Waits until all were sent; until the destination has dealt with them. */
    bool (*flush_zero)(struct RdmaChannel *channel, GError **error);
    bool (*settle_zero)(struct RdmaChannel *channel, GError **error);
    /* A waking brought nothing: is the peer there? Asks once in a heartbeat. NULL: others do. */
    bool (*probe)(struct RdmaChannel *channel, GError **error);
    /* Takes the connection's events, if these are not watched elsewhere (NULL). */
    bool (*take_events)(struct RdmaChannel *channel, GError **error);
} ChannelDialect;

/*
 * Sees to it that some completion comes: if none of what is in flight asked for one, nothing
 * would ever tell. Where there is no room to ask, something else will come.
 */
bool dialect_ask_for_completion(struct RdmaChannel *channel, GError **error);

#endif
