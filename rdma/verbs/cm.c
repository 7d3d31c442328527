/* SPDX-License-Identifier: BSD-2-Clause */
/* cm.c -- what every user of rdma_cm needs: its events, its parameters, a peer's name */

#include "cm.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <vmferry/error.h>

#include "base/fd-wait.h"
#include "nic-list.h"
#include "verbs-error.h"
#include "wire.h"

/* --- events --- */

bool cm_events_nonblocking(struct rdma_event_channel *events, GError **error)
{
    int flags = fcntl(events->fd, F_GETFL);

    if (flags < 0 || fcntl(events->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "cannot make the event channel non-blocking");
        return false;
    }
    return true;
}

struct rdma_cm_event *cm_next_event(struct rdma_event_channel *events, gint64 deadline,
                                    int cancel_fd, const char *what, GError **error)
{
    struct rdma_cm_event *event;

    for (;;) {
        if (CM_INT("rdma_get_cm_event", rdma_get_cm_event(events, &event)) == 0) {
            return event;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            verbs_set_error(error, VMF_ERROR_IO, errno, "%s: cannot read connection events", what);
            return NULL;
        }
        if (!fd_wait(events->fd, POLLIN, cancel_fd, deadline, what, error)) {
            return NULL;
        }
    }
}

void cm_event_error(const struct rdma_cm_event *event, const char *what, GError **error)
{
    int code = VMF_ERROR_CONNECT;
    const char *hint = "";
    g_autofree char *reason = NULL, *devices = NULL;

    switch (event->event) {
    case RDMA_CM_EVENT_REJECTED:
        code = VMF_ERROR_REFUSED;
        reason =
            wire_reject_decode(event->param.conn.private_data, event->param.conn.private_data_len);
        if (reason) {
            g_set_error(error, VMF_ERROR, code, "%s: the destination refused: %s", what, reason);
            return;
        }
        hint = "; does a destination listen on that port?";
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
        devices = nic_list();
        hint = "; no RDMA device has a route to that address; ";
        break;
    case RDMA_CM_EVENT_UNREACHABLE:
        hint = "; the host does not answer";
        break;
    default:
        break;
    }
    g_set_error(error, VMF_ERROR, code, "%s: %s%s%s%s%s", what, rdma_event_str(event->event),
                event->status < 0 ? ": " : "", event->status < 0 ? g_strerror(-event->status) : "",
                hint, devices ? devices : "");
}

/* --- ids --- */

void cm_parameters(struct rdma_conn_param *param, const void *data, size_t size)
{
    *param = (struct rdma_conn_param){
        .private_data = data,
        .private_data_len = (uint8_t)size,
        .responder_resources = 1,
        .initiator_depth = 1,
        .retry_count = 7,
        .rnr_retry_count = 7, /* governs the other side's sends: retry without end */
    };
}

void cm_set_ack_timeout(struct rdma_cm_id *id, unsigned timeout_ms)
{
    /*
     * The device waits 4.096 us * 2^t for an acknowledgement, and tries eight times in all. All
     * tries together must outlive a short break of the link. But they must end at about the time
     * when the session gives up. Not every device lets us choose.
     */
    double tries_us = timeout_ms * 1000.0 / 8 / 4.096;
    uint8_t t = (uint8_t)CLAMP((int)log2(MAX(tries_us, 1)), 12, 21);

    (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &t, sizeof(t));
}

char *cm_peer_name(struct rdma_cm_id *id)
{
    struct sockaddr *address = rdma_get_peer_addr(id);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    socklen_t size =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

    if (getnameinfo(address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        return g_strdup("unknown peer");
    }
    return strchr(host, ':') ? g_strdup_printf("[%s]:%s", host, port)
                             : g_strdup_printf("%s:%s", host, port);
}
