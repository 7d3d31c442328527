/* SPDX-License-Identifier: BSD-2-Clause */
/* arrivals.c -- destination: connections that ask a listener to be let in */

#include "arrivals.h"

#include <errno.h>
#include <string.h>

#include "verbs/cm.h"
#include "conn-endpoint.h"
#include "connection.h"
#include "data-channel.h"
#include "verbs/verbs-error.h"
#include "qemu-v1/v1-back.h"
#include "qemu-v1/v1-table.h"

/* The most control connections that are under way or wait to be accepted. Others are rejected. */
#define WAITING_MAX 16

/* A control connection that asked to be let in. */
typedef struct Waiting {
    RdmaConn *conn;
    gint64 deadline;
    bool established;
    bool greeted; /* its first message has come */
} Waiting;

/* How often an established connection is looked at for its first message. */
#define GREETING_US (10 * G_TIME_SPAN_MILLISECOND)

static void waiting_free(void *opaque)
{
    Waiting *waiting = opaque;

    if (waiting->conn) {
        conn_close(&waiting->conn->base);
    }
    g_free(waiting);
}

void arrivals_init(Arrivals *arrivals, const RdmaOptions *options)
{
    arrivals->options = options;
    arrivals->waiting = g_ptr_array_new_with_free_func(waiting_free);
}

void arrivals_clear(Arrivals *arrivals)
{
    g_ptr_array_unref(arrivals->waiting);
}

static Waiting *waiting_of(Arrivals *arrivals, const struct rdma_cm_id *id)
{
    for (unsigned i = 0; i < arrivals->waiting->len; i++) {
        Waiting *waiting = arrivals->waiting->pdata[i];
        if (waiting->conn->id == id) {
            return waiting;
        }
    }
    return NULL;
}

/* --- requests --- */

/* The kind of connection that asks to be let in, by the private data of its request. */
typedef enum {
    REQUEST_CONTROL, /* the control connection of a vmferry */
    REQUEST_CHANNEL, /* a channel of a vmferry */
    REQUEST_STOCK,   /* the first connection of a stock QEMU */
    REQUEST_BACK,    /* the second connection of a stock QEMU: the return path */
    REQUEST_STRANGER
} RequestKind;

typedef struct Request {
    RequestKind kind;
    struct rdma_cm_id *id;
    WireHello hello;             /* if the request is from a vmferry */
    V1Capabilities capabilities; /* if the request is from a stock QEMU */
} Request;

/*
 * Whether this is the second connection of a stock QEMU. It comes from the address of the first
 * one, before the stream begins.
 */
static bool is_return_path(const Arrivals *arrivals, struct rdma_cm_id *id)
{
    const RdmaConn *opening = arrivals->opening;

    return opening && opening->v1 && !opening->channels[VMF_CHANNEL_BACK] &&
           nic_same_address(rdma_get_peer_addr(opening->id), rdma_get_peer_addr(id));
}

static Request describe(const Arrivals *arrivals, const struct rdma_cm_event *event)
{
    const void *data = event->param.conn.private_data;
    const size_t size = event->param.conn.private_data_len;
    Request request = {.kind = REQUEST_STRANGER, .id = event->id};
    g_autoptr(GError) stranger = NULL;

    if (wire_hello_decode(data, size, &request.hello, &stranger)) {
        request.kind = request.hello.kind == WIRE_KIND_CONTROL ? REQUEST_CONTROL : REQUEST_CHANNEL;
    } else if (!wire_hello_is(data, size) &&
               v1_capabilities_decode(data, size, &request.capabilities, NULL)) {
        request.kind = is_return_path(arrivals, event->id) ? REQUEST_BACK : REQUEST_STOCK;
    } else {
        g_debug("rdma: rejected a stranger: %s", stranger->message);
    }
    return request;
}

static void reject(struct rdma_cm_id *id, const char *why)
{
    uint8_t data[WIRE_REJECT_BYTES];

    (void)rdma_reject(id, data, why ? (uint8_t)wire_reject_encode(why, data) : 0);
}

static bool accept_id(struct rdma_cm_id *id, unsigned timeout_ms, const void *reply, size_t size,
                      GError **error)
{
    struct rdma_conn_param param;

    cm_parameters(&param, reply, size);
    cm_set_ack_timeout(id, timeout_ms);
    if (CM_INT("rdma_accept", rdma_accept(id, &param)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "cannot accept an RDMA connection");
        return false;
    }
    return true;
}

/* --- control connections, which wait until they are accepted --- */

/*
 * Makes the connection of a request, and sends the reply. NULL with *error: the caller still owns
 * the id.
 */
static RdmaConn *answer(const Arrivals *arrivals, const Request *request, const void *reply,
                        size_t reply_size, GError **error)
{
    RdmaConn *conn = conn_new(arrivals->options, VMF_ROLE_DESTINATION, error);

    if (!conn) {
        return NULL;
    }
    conn->control = request->kind == REQUEST_CONTROL
                        ? conn_control_endpoint(conn, request->id, error)
                        : v1_accept(conn, request->id, &request->capabilities, error);
    if (conn->control && conn_own_id(conn, request->id, error) &&
        accept_id(request->id, arrivals->options->timeout_ms, reply, reply_size, error)) {
        return conn;
    }
    conn->id = NULL; /* the caller destroys it */
    conn_close(&conn->base);
    return NULL;
}

/*
 * Returns whether the id was taken over. If not, *why tells the source the reason. The caller frees
 * it.
 */
static bool let_wait(Arrivals *arrivals, const Request *request, const void *reply,
                     size_t reply_size, char **why)
{
    const gint64 deadline =
        g_get_monotonic_time() + (gint64)arrivals->options->connect_timeout_ms * 1000;
    g_autoptr(GError) error = NULL;
    Waiting *waiting;
    RdmaConn *conn;

    if (arrivals->waiting->len >= WAITING_MAX) {
        *why = g_strdup("busy: too many other sources wait for it already; try again later");
        return false;
    }
    conn = answer(arrivals, request, reply, reply_size, &error);
    if (!conn) {
        g_warning("rdma: a source was turned away: %s", error->message);
        *why =
            g_strdup(error->code == VMF_ERROR_MEMLOCK
                         ? "its memory-lock limit (ulimit -l) is too small for the message buffers"
                         : error->message);
        return false;
    }
    waiting = g_new0(Waiting, 1);
    waiting->conn = conn;
    waiting->deadline = deadline;
    g_ptr_array_add(arrivals->waiting, waiting);
    return true;
}

static bool let_control_in(Arrivals *arrivals, const Request *request, char **why)
{
    uint8_t reply[WIRE_HELLO_BYTES];

    wire_hello_encode(&request->hello, reply);
    return let_wait(arrivals, request, reply, sizeof(reply), why);
}

static bool let_stock_in(Arrivals *arrivals, const Request *request, char **why)
{
    uint8_t reply[V1_CAPABILITIES_BYTES];

    v1_reply(&request->capabilities, reply);
    return let_wait(arrivals, request, reply, sizeof(reply), why);
}

/* --- what belongs to a connection that is being opened --- */

/* Returns whether the id was taken over. A failure of this side ends the opening by *error. */
static bool let_channel_in(Arrivals *arrivals, const Request *request, GError **error)
{
    const WireHello *hello = &request->hello;
    RdmaConn *conn = arrivals->opening;
    RdmaChannel *channel;

    if (!conn || memcmp(hello->uuid, conn->base.uuid, VMF_UUID_BYTES) != 0 ||
        hello->channel >= conn->base.channels || conn->channels[hello->channel]) {
        return false; /* a stranger's channel, or one too many */
    }
    channel = channel_new(conn, hello->channel, request->id, error);
    if (!channel) {
        return false;
    }
    if (!accept_id(request->id, conn->base.timeout_ms, NULL, 0, error)) {
        channel->id = NULL; /* the caller destroys it */
        channel_free(channel);
        return false;
    }
    conn->channels[hello->channel] = channel;
    return true;
}

static bool let_back_in(Arrivals *arrivals, const Request *request)
{
    RdmaConn *conn = arrivals->opening;
    g_autoptr(GError) error = NULL;
    uint8_t reply[V1_CAPABILITIES_BYTES];

    v1_reply(&request->capabilities, reply);
    if (v1_accept_back(conn, request->id, &error)) {
        if (accept_id(request->id, conn->base.timeout_ms, reply, sizeof(reply), &error)) {
            return true;
        }
        conn->channels[VMF_CHANNEL_BACK]->id = NULL; /* the caller destroys it */
        channel_free(g_steal_pointer(&conn->channels[VMF_CHANNEL_BACK]));
    }
    g_warning("rdma: a return path was turned away: %s", error->message);
    return false;
}

static bool let_in(Arrivals *arrivals, const Request *request, char **why, GError **error)
{
    switch (request->kind) {
    case REQUEST_CONTROL:
        return let_control_in(arrivals, request, why);
    case REQUEST_CHANNEL:
        return let_channel_in(arrivals, request, error);
    case REQUEST_STOCK:
        return let_stock_in(arrivals, request, why);
    case REQUEST_BACK:
        return let_back_in(arrivals, request);
    default:
        return false;
    }
}

/* --- events --- */

static bool request_came(Arrivals *arrivals, struct rdma_cm_event *event, GError **error)
{
    const Request request = describe(arrivals, event);
    GError *failure = NULL;
    g_autofree char *why = NULL;
    const bool taken = let_in(arrivals, &request, &why, &failure);

    rdma_ack_cm_event(event);
    if (!taken) {
        reject(request.id, failure ? failure->message : why);
        rdma_destroy_id(request.id);
    }
    if (failure) {
        g_propagate_error(error, failure);
        return false;
    }
    return true;
}

/* The channel that has this id, of the connection that is being opened. NULL if there is none. */
static RdmaChannel *opening_channel(const Arrivals *arrivals, const struct rdma_cm_id *id)
{
    for (unsigned i = 0; arrivals->opening && i < arrivals->opening->base.channels; i++) {
        RdmaChannel *channel = arrivals->opening->channels[i];

        if (channel && channel->id == id) {
            return channel;
        }
    }
    return NULL;
}

static void established(Arrivals *arrivals, const struct rdma_cm_id *id)
{
    Waiting *waiting = waiting_of(arrivals, id);

    if (waiting) {
        waiting->established = true;
    } else if (opening_channel(arrivals, id)) {
        arrivals->opened++;
    }
}

/* Handles a connection that has left, or was never established. */
static bool ended(Arrivals *arrivals, const struct rdma_cm_id *id, bool in_time_wait,
                  GError **error)
{
    Waiting *waiting = waiting_of(arrivals, id);
    const RdmaChannel *channel = opening_channel(arrivals, id);

    if (waiting) {
        g_ptr_array_remove(arrivals->waiting, waiting);
        return true;
    }
    if (channel && !in_time_wait) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                    "channel %u of %s failed while it was opened", channel->number,
                    arrivals->opening->base.peer);
        return false;
    }
    return true;
}

bool arrivals_take(Arrivals *arrivals, struct rdma_cm_event *event, GError **error)
{
    const struct rdma_cm_id *id = event->id;
    const enum rdma_cm_event_type type = event->event;

    if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
        return request_came(arrivals, event, error);
    }
    rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_ESTABLISHED) {
        established(arrivals, id);
        return true;
    }
    return ended(arrivals, id, type == RDMA_CM_EVENT_TIMEWAIT_EXIT, error);
}

/* --- connections that wait --- */

void arrivals_drop_all(Arrivals *arrivals)
{
    g_ptr_array_set_size(arrivals->waiting, 0);
}

void arrivals_drop_lost(Arrivals *arrivals)
{
    for (unsigned i = arrivals->waiting->len; i-- > 0;) {
        Waiting *waiting = arrivals->waiting->pdata[i];

        if (!nic_check(waiting->conn->nic, NULL)) {
            g_ptr_array_remove_index(arrivals->waiting, i);
        }
    }
}

/*
 * Whether a connection has greeted. A vmferry source greets at once. A silent source waits, so it
 * delays no other source. Stock QEMU waits until it is spoken to, so it counts as greeted.
 */
static bool has_greeted(Waiting *waiting)
{
    if (waiting->established && !waiting->greeted) {
        waiting->greeted = waiting->conn->v1 || (endpoint_poll(waiting->conn->control, NULL) &&
                                                 waiting->conn->control->ready_count);
    }
    return waiting->greeted;
}

gint64 arrivals_drop_overdue(Arrivals *arrivals)
{
    gint64 now = g_get_monotonic_time(), next = G_MAXINT64;

    for (unsigned i = 0; i < arrivals->waiting->len;) {
        Waiting *waiting = arrivals->waiting->pdata[i];

        if (!has_greeted(waiting) && waiting->deadline <= now) {
            g_ptr_array_remove_index(arrivals->waiting, i);
            continue;
        }
        if (!waiting->greeted) {
            next = MIN(next, waiting->established ? now + GREETING_US : waiting->deadline);
        }
        i++;
    }
    return next;
}

/*
 * Takes the first connection that has greeted, of a stock QEMU or of a vmferry. Moves its events to
 * its own event channel. NULL if there is none, or with *error.
 */
static RdmaConn *take_first(Arrivals *arrivals, bool stock, GError **error)
{
    for (unsigned i = 0; i < arrivals->waiting->len; i++) {
        Waiting *waiting = arrivals->waiting->pdata[i];
        RdmaConn *conn = waiting->conn;

        if (stock != (conn->v1 != NULL) || !has_greeted(waiting)) {
            continue;
        }
        if (CM_INT("rdma_migrate_id", rdma_migrate_id(conn->id, conn->events)) < 0) {
            verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot move a connection's events");
            g_ptr_array_remove_index(arrivals->waiting, i);
            return NULL;
        }
        waiting->conn = NULL;
        g_free(g_ptr_array_steal_index(arrivals->waiting, i));
        return conn;
    }
    return NULL;
}

RdmaConn *arrivals_take_greeted(Arrivals *arrivals, GError **error)
{
    GError *failure = NULL;
    RdmaConn *conn = take_first(arrivals, false, &failure);

    if (!conn && !failure) {
        conn = take_first(arrivals, true, &failure);
    }
    if (failure) {
        g_propagate_error(error, failure);
    }
    return conn;
}
