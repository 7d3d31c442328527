/* SPDX-License-Identifier: BSD-2-Clause */
/* channel-dialect.c -- what every dialect is used for in the same way */

#include "channel-dialect.h"

#include "rdma-conn.h"

bool dialect_ask_for_completion(RdmaChannel *channel, GError **error)
{
    const Endpoint *ep = channel->ep;
    const ChannelDialect *dialect = channel->dialect;

    if (!ep->open.requests || ep->batch_count ||
        (dialect->nop_is_message && !endpoint_can_send(ep))) {
        return true;
    }
    return dialect->send_nop(channel, error);
}
