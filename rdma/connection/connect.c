/* SPDX-License-Identifier: BSD-2-Clause */
/* connect.c -- source: connecting to a destination, which is a vmferry or stock QEMU */

#include "connect.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "base/resolve.h"
#include "verbs/cm.h"
#include "conn-endpoint.h"
#include "connection.h"
#include "data-channel.h"
#include "dial.h"
#include "verbs/verbs-error.h"
#include "qemu-v1/v1-state.h"
#include "qemu-v1/v1-table.h"

static bool establish(const Dial *dial, struct rdma_cm_id *id, const WireHello *hello,
                      unsigned timeout_ms, uint8_t reply[WIRE_HELLO_BYTES], GError **error)
{
    uint8_t data[WIRE_HELLO_BYTES];

    wire_hello_encode(hello, data);
    return dial_establish(dial, id, data, sizeof(data), timeout_ms, reply, error);
}

/*
 * Recognises the peer that answered. A vmferry sends the greeting back. Stock QEMU sends its
 * version and flags.
 */
static bool recognise_peer(RdmaConn *conn, const WireHello *hello, const uint8_t *reply,
                           const char *what, GError **error)
{
    V1Capabilities capabilities;
    WireHello back;

    if (wire_hello_is(reply, WIRE_HELLO_BYTES)) { /* the peer is no stock QEMU */
        if (!wire_hello_decode(reply, WIRE_HELLO_BYTES, &back, error)) {
            g_prefix_error(error, "%s: ", what);
            return false;
        }
        if (memcmp(back.uuid, hello->uuid, VMF_UUID_BYTES) != 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                        "%s: the answer is for another session", what);
            return false;
        }
        return true;
    }
    if (!v1_capabilities_decode(reply, V1_CAPABILITIES_BYTES, &capabilities, error) ||
        !v1_connected(conn, &capabilities, error)) {
        g_prefix_error(error, "%s: ", what);
        return false;
    }
    return true;
}

static bool connect_control(RdmaConn *conn, struct sockaddr *address, const uint8_t *uuid,
                            const Dial *dial, GError **error)
{
    WireHello hello = {
        .kind = WIRE_KIND_CONTROL,
        .pin_all = conn->options.registration == RDMA_REGISTRATION_PIN_ALL,
    };
    struct rdma_cm_id *id = dial_resolve(dial, address, error);
    const RdmaRegistration registration = conn->options.registration;
    uint8_t reply[WIRE_HELLO_BYTES] = {0};

    if (!id) {
        return false;
    }
    memcpy(hello.uuid, uuid, VMF_UUID_BYTES);
    conn->control = conn_control_endpoint(conn, id, error);
    if (conn->control && establish(dial, id, &hello, conn->options.timeout_ms, reply, error) &&
        recognise_peer(conn, &hello, reply, dial->what, error) && conn_own_id(conn, id, error)) {
        return true;
    }
    /*
     * The next address may belong to another device and another peer. The id goes last, because it
     * holds the context of the device.
     */
    endpoint_free(g_steal_pointer(&conn->control));
    if (conn->pd) {
        ibv_dealloc_pd(g_steal_pointer(&conn->pd));
    }
    rdma_destroy_id(id);
    v1_forget(conn);
    conn->options.registration = registration;
    return false;
}

/* Tries every address. Each one gets its share of the time that is left. */
static bool connect_any(RdmaConn *conn, const VmfUri *uri, const struct addrinfo *list,
                        const uint8_t *uuid, gint64 deadline, int cancel_fd, GError **error)
{
    bool ok = false;

    for (const struct addrinfo *at = list; at && !ok; at = at->ai_next) {
        char address[NI_MAXHOST] = "?";
        g_autofree char *what = NULL;
        g_autoptr(GError) failure = NULL;
        Dial dial = {.events = conn->events, .cancel_fd = cancel_fd};

        getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
        what = g_strdup_printf("cannot connect to %s port %s by RDMA", address, vmf_uri_port(uri));
        dial.what = what;
        dial.deadline = resolve_share(deadline, resolve_count(at));
        ok = connect_control(conn, at->ai_addr, uuid, &dial, &failure);
        if (!ok && (!at->ai_next || g_error_matches(failure, VMF_ERROR, VMF_ERROR_CANCELLED))) {
            g_propagate_error(error, g_steal_pointer(&failure));
            break;
        }
    }
    return ok;
}

static RdmaConn *look_up_and_connect(const VmfUri *uri, const RdmaOptions *options,
                                     const uint8_t *uuid, int cancel_fd, GError **error)
{
    const ResolveQuery query = {
        .host = vmf_uri_host(uri),
        .port = vmf_uri_port(uri),
        .deadline = g_get_monotonic_time() + (gint64)options->connect_timeout_ms * 1000,
        .cancel_fd = cancel_fd,
    };
    struct addrinfo *list = resolve_host(&query, error);
    RdmaConn *conn = list ? conn_new(options, VMF_ROLE_SOURCE, error) : NULL;

    if (conn && !connect_any(conn, uri, list, uuid, query.deadline, cancel_fd, error)) {
        conn_close(&conn->base);
        conn = NULL;
    }
    if (list) {
        freeaddrinfo(list);
    }
    return conn;
}

VmfConn *conn_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES], GCancellable *cancel,
                      GError **error)
{
    GPollFD cancel_fd = {.fd = -1};
    RdmaOptions options;
    RdmaConn *conn;

    if (!options_from_uri(uri, &options, error)) {
        return NULL;
    }
    if (!*vmf_uri_host(uri)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "rdma: needs a host to connect to (rdma:HOST:PORT)");
        return NULL;
    }
    g_cancellable_make_pollfd(cancel, &cancel_fd);
    conn = look_up_and_connect(uri, &options, uuid, cancel_fd.fd, error);
    if (cancel_fd.fd >= 0) {
        g_cancellable_release_fd(cancel);
    }
    return conn ? &conn->base : NULL;
}

/*
 * Connects a channel. While it connects, it has another event channel than the connection. The
 * control thread watches the event channel of the connection, and would take the events.
 */
static bool connect_channel(RdmaConn *conn, unsigned number, Dial *dial, GError **error)
{
    WireHello hello = {.kind = WIRE_KIND_CHANNEL, .channel = number};
    struct rdma_cm_id *id = dial_resolve(dial, rdma_get_peer_addr(conn->id), error);
    RdmaChannel *channel;

    if (!id) {
        return false;
    }
    memcpy(hello.uuid, conn->base.uuid, VMF_UUID_BYTES);
    channel = channel_new(conn, number, id, error);
    if (!channel) {
        rdma_destroy_id(id);
        return false;
    }
    conn->channels[number] = channel;
    if (!establish(dial, id, &hello, conn->base.timeout_ms, NULL, error)) {
        return false;
    }
    if (CM_INT("rdma_migrate_id", rdma_migrate_id(id, conn->events)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "%s: cannot move its events",
                        channel->ep->name);
        return false;
    }
    return true;
}

/*
 * Frees unfinished channels after a failure, because no id may stay with an event channel that is
 * destroyed.
 */
static void drop_unfinished(RdmaConn *conn)
{
    for (unsigned i = 0; i < conn->base.channels; i++) {
        if (conn->channels[i] && conn->channels[i]->id->channel != conn->events) {
            channel_free(g_steal_pointer(&conn->channels[i]));
        }
    }
}

bool conn_open_channels(VmfConn *base, GError **error)
{
    RdmaConn *conn = conn_of(base);
    g_autofree char *what = NULL;
    Dial dial = {.cancel_fd = base->cancel_fd};
    bool ok = true;

    base->counters = g_new0(VmfChannelCounters, base->channels);
    dial.events = VERBS_POINTER("rdma_create_event_channel 2", rdma_create_event_channel());
    if (!dial.events) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot create an event channel");
        return false;
    }
    dial.deadline = g_get_monotonic_time() + (gint64)conn->options.connect_timeout_ms * 1000;
    ok = cm_events_nonblocking(dial.events, error);
    for (unsigned i = 0; ok && i < base->channels; i++) {
        g_free(what);
        what = g_strdup_printf("cannot open channel %u to %s", i, base->peer);
        dial.what = what;
        ok = connect_channel(conn, i, &dial, error);
    }
    drop_unfinished(conn);
    rdma_destroy_event_channel(dial.events);
    return ok;
}
