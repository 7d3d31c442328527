/* SPDX-License-Identifier: BSD-2-Clause */
/* cm.h -- what every user of rdma_cm needs: its events, its parameters, a peer's name */

#ifndef VMF_RDMA_CM_H
#define VMF_RDMA_CM_H

#include <stdbool.h>
#include <stddef.h>
#include <gio/gio.h>
#include "verbs.h"

/* Makes rdma_get_cm_event return at once when there is no event. */
bool cm_events_nonblocking(struct rdma_event_channel *events, GError **error);
/*
 * Waits for the next event of a channel, until the deadline (g_get_monotonic_time) or until
 * cancel_fd is readable. The caller acknowledges the event. NULL with *error, whose text begins
 * with `what'.
 */
struct rdma_cm_event *cm_next_event(struct rdma_event_channel *events, gint64 deadline,
                                    int cancel_fd, const char *what, GError **error);
/* Sets *error for an event that is not the awaited one. Does not acknowledge the event. */
void cm_event_error(const struct rdma_cm_event *event, const char *what, GError **error);

/* Fills in the parameters of rdma_connect and rdma_accept. `data' must stay until that call. */
void cm_parameters(struct rdma_conn_param *param, const void *data, size_t size);
/* Sets how long the device retries an unanswered packet, to fit the time-out of the session. */
void cm_set_ack_timeout(struct rdma_cm_id *id, unsigned timeout_ms);
/* "HOST:PORT" of the peer. The caller frees it. */
char *cm_peer_name(struct rdma_cm_id *id);

#endif
