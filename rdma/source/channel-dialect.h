/* SPDX-License-Identifier: BSD-2-Clause */
/* channel-dialect.h -- what a source says on a channel besides its writes, in either protocol */

#ifndef VMF_RDMA_CHANNEL_DIALECT_H
#define VMF_RDMA_CHANNEL_DIALECT_H

#include <stdbool.h>
#include <glib.h>
#include "wire.h"

struct RdmaChannel;

/*
 * On the source: vmferry's own messages or those of stock QEMU. All RAM goes by one write queue and
 * one registrar. Only this table differs. The channel's thread calls its functions. A bool with a
 * GError is false on failure.
 */
typedef struct ChannelDialect {
    unsigned register_batch; /* chunks in one request, at most REGISTRAR_BATCH */
    unsigned requests_max;   /* unanswered requests, at most REGISTRAR_REQUESTS_MAX */
    bool nop_is_message;     /* a nop needs room for a message */
    bool local_evictions;    /* evictions are not told, and the destination keeps what it has */
    /* Whether a request can be sent now. */
    bool (*can_request)(const struct RdmaChannel *channel);
    /* Sends a request. can_request must be true. */
    bool (*send_request)(struct RdmaChannel *channel, const WireRegister *request, GError **error);
    /* Sends something that only completes, after all that was posted before. */
    bool (*send_nop)(struct RdmaChannel *channel, GError **error);
    /* Takes the messages that endpoint_poll found, and sends the answers that they need. */
    bool (*take_messages)(struct RdmaChannel *channel, GError **error);
    /*
     * Sends zero ranges before a registration request, if the protocol wants that. Does not wait.
     */
    bool (*post_zero)(struct RdmaChannel *channel, GError **error);
    /* Sends all zero ranges. Waits until they are posted. */
    bool (*flush_zero)(struct RdmaChannel *channel, GError **error);
    /* Sends all zero ranges. Waits until the destination has dealt with them. */
    bool (*settle_zero)(struct RdmaChannel *channel, GError **error);
    /*
     * Asks whether the peer is there, at most once in a heartbeat, after a sleep that brought
     * nothing. NULL if the control connection finds that out.
     */
    bool (*probe)(struct RdmaChannel *channel, GError **error);
    /* Takes rdma_cm's events of the connection. NULL if another thread watches them. */
    bool (*take_events)(struct RdmaChannel *channel, GError **error);
} ChannelDialect;

/*
 * Makes sure that some completion comes. If no request in flight asked for one, nothing would ever
 * wake the thread. If there is no room to ask, something else will come.
 */
bool dialect_ask_for_completion(struct RdmaChannel *channel, GError **error);

#endif
