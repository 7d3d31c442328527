/* SPDX-License-Identifier: BSD-2-Clause */
/* socket-rdma.c -- a transport rdma: over UNIX domain sockets, for machines without a device */

#include "socket-rdma.h"

#include <string.h>
#include <vmferry/plugin/transport.h>

static const VmfTransport *base;
static VmfTransport table;
static char *folder;
static gint is_cut, pinned;

static const VmfOptionSpec options[] = {
    {.name = "switchover-wait",
     .type = VMF_OPTION_DURATION,
     .default_value = "0",
     .help = "as that of rdma:"},
    {.name = "registration",
     .type = VMF_OPTION_CHOICE,
     .default_value = "auto",
     .choices = "auto|pin-all|chunk|odp",
     .help = "as of the plugin"},
    {0},
};

void socket_rdma_cut(bool cut)
{
    g_atomic_int_set(&is_cut, cut);
}

unsigned socket_rdma_pinned(void)
{
    return (unsigned)g_atomic_int_get(&pinned);
}

static bool cut_now(GError **error)
{
    if (g_atomic_int_get(&is_cut)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the test has cut the connection");
        return true;
    }
    return false;
}

/* The socket of a URI. */
static VmfUri *socket_of(const VmfUri *uri, GError **error)
{
    static const char *const durations[] = {"connect-timeout", "timeout"};
    g_autofree char *text = g_strdup_printf("unix:%s/%s", folder, vmf_uri_port(uri));
    g_autoptr(VmfUri) made = vmf_uri_parse(text, error);

    for (unsigned i = 0; made && i < G_N_ELEMENTS(durations); i++) {
        g_autofree char *value =
            g_strdup_printf("%" G_GUINT64_FORMAT "ms", vmf_uri_get_uint(uri, durations[i]));

        if (!vmf_uri_set(made, durations[i], value, error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&made);
}

/* A connection that names its table would go around this one. */
static VmfConn *wrapped(VmfConn *conn)
{
    if (conn && conn->ops == base) {
        conn->ops = &table;
    }
    return conn;
}

static VmfConn *connect_socket(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                               GCancellable *cancel, GError **error)
{
    g_autoptr(VmfUri) socket = cut_now(error) ? NULL : socket_of(uri, error);

    if (strcmp(vmf_uri_get_string(uri, "registration"), "pin-all") == 0) {
        g_atomic_int_inc(&pinned);
    }
    return socket ? wrapped(base->connect(socket, uuid, cancel, error)) : NULL;
}

static VmfTransportListener *listen_socket(const VmfUri *uri, GError **error)
{
    g_autoptr(VmfUri) socket = socket_of(uri, error);

    return socket ? base->listen(socket, error) : NULL;
}

static VmfConn *accept_socket(VmfTransportListener *listener, GCancellable *cancel, GError **error)
{
    return wrapped(base->accept(listener, cancel, error));
}

static char *address_of(VmfTransportListener *listener)
{
    g_autofree char *address = base->listener_address(listener);

    return g_strconcat("rdma::", strrchr(address, '/') + 1, NULL);
}

static VmfControlResult control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                     GError **error)
{
    return cut_now(error) ? VMF_CONTROL_ERROR : base->control_send(conn, iov, iovcnt, error);
}

static VmfControlResult control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                        GError **error)
{
    return cut_now(error) ? VMF_CONTROL_ERROR : base->control_receive(conn, message, size, error);
}

/* A cut is noticed without a message. */
static bool control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms, GError **error)
{
    return base->control_wait(conn, wake_fd, want_send, MIN(timeout_ms, 20), error);
}

void socket_rdma_register(const char *directory)
{
    g_autoptr(GError) error = NULL;

    base = vmf_transport_find("unix", NULL);
    table = *base;
    table.scheme = "rdma";
    table.options = options;
    table.connect = connect_socket;
    table.listen = listen_socket;
    table.accept = accept_socket;
    table.listener_address = address_of;
    table.control_send = control_send;
    table.control_receive = control_receive;
    table.control_wait = control_wait;
    folder = g_strdup(directory);
    if (!vmf_transport_register(&table, &error)) {
        g_error("%s", error->message);
    }
}
