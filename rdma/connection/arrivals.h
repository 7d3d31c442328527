/* SPDX-License-Identifier: BSD-2-Clause */
/* arrivals.h -- destination: who asks a listener to be let in, and what becomes of each */

#ifndef VMF_RDMA_ARRIVALS_H
#define VMF_RDMA_ARRIVALS_H

#include "conn.h"

/* Who has asked; all of it belongs to the thread that has the listener. */
typedef struct Arrivals {
    const RdmaOptions *options; /* the listener's */
    GPtrArray *waiting;         /* control connections that were not accepted yet */
    RdmaConn *opening;          /* the connection whose channels are awaited, while they are */
    unsigned opened;            /* those that are there */
} Arrivals;

void arrivals_init(Arrivals *arrivals, const RdmaOptions *options);
void arrivals_clear(Arrivals *arrivals);

/*
 * A request or other news of an id that is not the listener's own; acknowledges the event. False
 * with *error only when the opening of channels must end.
 */
bool arrivals_take(Arrivals *arrivals, struct rdma_cm_event *event, GError **error);

/* Drops every control connection that waits; those on a device that is gone. */
void arrivals_drop_all(Arrivals *arrivals);
void arrivals_drop_lost(Arrivals *arrivals);
/* Drops who asked and then fell silent; returns when to look again. */
gint64 arrivals_drop_overdue(Arrivals *arrivals);
/*
 * The first that has greeted, its events moved to itself; NULL if there is none. A stock QEMU has
 * not said anything yet, so it comes after those that have.
 */
RdmaConn *arrivals_take_greeted(Arrivals *arrivals, GError **error);

#endif
