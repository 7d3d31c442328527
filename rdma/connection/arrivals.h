/* SPDX-License-Identifier: BSD-2-Clause */
/* arrivals.h -- destination: connections that ask a listener to be let in */

#ifndef VMF_RDMA_ARRIVALS_H
#define VMF_RDMA_ARRIVALS_H

#include "rdma-conn.h"

/* The connections that have asked. All of it belongs to the thread that has the listener. */
typedef struct Arrivals {
    const RdmaOptions *options; /* the listener's */
    GPtrArray *waiting;         /* control connections that listener_accept has not returned yet */
    RdmaConn *opening;          /* the connection that waits for its channels; or NULL */
    unsigned opened;            /* how many of its channels are established */
} Arrivals;

void arrivals_init(Arrivals *arrivals, const RdmaOptions *options);
void arrivals_clear(Arrivals *arrivals);

/*
 * Handles an event of an id that is not the listener's own, and acknowledges the event. False with
 * *error only when the opening of channels must end.
 */
bool arrivals_take(Arrivals *arrivals, struct rdma_cm_event *event, GError **error);

/* Drops every control connection that waits. */
void arrivals_drop_all(Arrivals *arrivals);
/* Drops the waiting control connections whose device is gone. */
void arrivals_drop_lost(Arrivals *arrivals);
/*
 * Drops the connections that did not greet within their time. Returns when to look again
 * (g_get_monotonic_time), or G_MAXINT64.
 */
gint64 arrivals_drop_overdue(Arrivals *arrivals);
/*
 * The first connection that has greeted, with its events moved to its own event channel. The caller
 * owns it. NULL if there is none, or with *error. A stock QEMU waits until it is spoken to, so it
 * comes after the connections that have greeted.
 */
RdmaConn *arrivals_take_greeted(Arrivals *arrivals, GError **error);

#endif
