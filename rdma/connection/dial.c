/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dial.c -- source: one connection of rdma_cm, step by step, with a deadline and a cancel
 * descriptor
 */

#include "dial.h"

#include <errno.h>
#include <string.h>

#include "verbs/cm.h"
#include "conn-endpoint.h"
#include "verbs/nic-list.h"
#include "verbs/verbs-error.h"

static bool expect_event(const Dial *dial, enum rdma_cm_event_type wanted,
                         uint8_t reply[WIRE_HELLO_BYTES], GError **error)
{
    struct rdma_cm_event *event =
        cm_next_event(dial->events, dial->deadline, dial->cancel_fd, dial->what, error);
    bool ok;

    if (!event) {
        return false;
    }
    ok = event->event == wanted;
    if (!ok) {
        cm_event_error(event, dial->what, error);
    } else if (reply && event->param.conn.private_data) {
        memcpy(reply, event->param.conn.private_data,
               MIN(event->param.conn.private_data_len, WIRE_HELLO_BYTES));
    }
    rdma_ack_cm_event(event);
    return ok;
}

static int left_ms(const Dial *dial)
{
    const gint64 left = (dial->deadline - g_get_monotonic_time()) / 1000;

    return (int)CLAMP(left, 1, 60000);
}

/*
 * Sets the error for an address that no RDMA device reaches. rdma_cm has no error of its own for a
 * wrong address, or for a device that this process may not open.
 */
static void no_device(const Dial *dial, int err, GError **error)
{
    g_autofree char *devices = nic_list();

    verbs_set_error(error, VMF_ERROR_CONNECT, err, "%s: no RDMA device reaches that address; %s",
                    dial->what, devices);
}

struct rdma_cm_id *dial_resolve(const Dial *dial, struct sockaddr *address, GError **error)
{
    struct rdma_cm_id *id = NULL;

    if (CM_INT("rdma_create_id", rdma_create_id(dial->events, &id, NULL, RDMA_PS_TCP)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "%s: cannot create a connection id",
                        dial->what);
        return NULL;
    }
    if (CM_INT("rdma_resolve_addr", rdma_resolve_addr(id, NULL, address, left_ms(dial))) < 0) {
        no_device(dial, errno, error);
    } else if (expect_event(dial, RDMA_CM_EVENT_ADDR_RESOLVED, NULL, error)) {
        if (CM_INT("rdma_resolve_route", rdma_resolve_route(id, left_ms(dial))) < 0) {
            no_device(dial, errno, error);
        } else if (expect_event(dial, RDMA_CM_EVENT_ROUTE_RESOLVED, NULL, error)) {
            return id;
        }
    }
    rdma_destroy_id(id);
    return NULL;
}

bool dial_establish(const Dial *dial, struct rdma_cm_id *id, const void *data, size_t size,
                    unsigned timeout_ms, uint8_t reply[WIRE_HELLO_BYTES], GError **error)
{
    struct rdma_conn_param param;

    cm_parameters(&param, data, size);
    cm_set_ack_timeout(id, timeout_ms);
    if (CM_INT("rdma_connect", rdma_connect(id, &param)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "%s", dial->what);
        return false;
    }
    return expect_event(dial, RDMA_CM_EVENT_ESTABLISHED, reply, error);
}

struct rdma_cm_id *conn_connect_again(RdmaConn *conn, struct rdma_event_channel *events,
                                      const EndpointLimits *limits, const char *name,
                                      const void *data, size_t size, gint64 deadline, Endpoint **ep,
                                      GError **error)
{
    g_autofree char *what =
        g_strdup_printf("cannot connect to %s by RDMA for the %s", conn->base.peer, name);
    const Dial dial = {
        .events = events, .deadline = deadline, .cancel_fd = conn->base.cancel_fd, .what = what};
    struct rdma_cm_id *id = dial_resolve(&dial, rdma_get_peer_addr(conn->id), error);

    if (!id) {
        return NULL;
    }
    *ep = conn_endpoint(conn, id, false, limits, name, error);
    if (*ep && dial_establish(&dial, id, data, size, conn->base.timeout_ms, NULL, error)) {
        return id;
    }
    endpoint_free(g_steal_pointer(ep));
    rdma_destroy_id(id);
    return NULL;
}
