/* SPDX-License-Identifier: BSD-2-Clause */
/* listen-address.c -- the address that a listener is bound to */

#include "listen-address.h"

#include <netdb.h>

#include "base/resolve.h"
#include "verbs/nic-list.h"
#include "verbs/verbs-error.h"

static bool is_any(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6
               ? IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr)
               : ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

/*
 * Binds the id. An address of no device can be bound to, but no connection ever arrives there. So
 * it is an error.
 */
static bool bind_address(struct rdma_cm_id *id, struct sockaddr *address)
{
    int reuse = 1;

    (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &reuse, sizeof(reuse));
    if (CM_INT("rdma_bind_addr", rdma_bind_addr(id, address)) < 0) {
        return false;
    }
    if (!is_any(address) && !id->verbs) {
        errno = ENODEV;
        return false;
    }
    return true;
}

static struct rdma_cm_id *new_id(struct rdma_event_channel *events, GError **error)
{
    struct rdma_cm_id *id = NULL;

    if (CM_INT("rdma_create_id", rdma_create_id(events, &id, NULL, RDMA_PS_TCP)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "cannot create a listening id");
        return NULL;
    }
    return id;
}

static void cannot_listen(const ResolveQuery *query, int failure, GError **error)
{
    g_autofree char *devices = failure == EADDRINUSE ? NULL : nic_list();

    verbs_set_error(error, VMF_ERROR_CONNECT, failure, "cannot listen on %s port %s by RDMA%s%s",
                    *query->host ? query->host : "any address", query->port, devices ? "; " : "",
                    devices ? devices : "");
}

/* Binds a new id to the first of the addresses that takes it. */
static struct rdma_cm_id *bind_any(struct rdma_event_channel *events, const ResolveQuery *query,
                                   const struct addrinfo *list, GError **error)
{
    int failure = 0;

    for (const struct addrinfo *at = list; at; at = at->ai_next) {
        struct rdma_cm_id *id = new_id(events, error);

        if (!id) {
            return NULL;
        }
        if (bind_address(id, at->ai_addr)) {
            return id;
        }
        failure = errno;
        rdma_destroy_id(id);
    }
    cannot_listen(query, failure, error);
    return NULL;
}

static struct rdma_cm_id *bind_to(struct rdma_event_channel *events, const VmfUri *uri,
                                  unsigned timeout_ms, GError **error)
{
    const char *host = vmf_uri_host(uri);
    const ResolveQuery query = {
        .host = host,
        .port = vmf_uri_port(uri),
        .family = *host ? AF_UNSPEC : AF_INET6, /* AF_INET6 takes IPv4 as well */
        .deadline = g_get_monotonic_time() + (gint64)timeout_ms * 1000,
        .cancel_fd = -1,
    };
    struct addrinfo *list = resolve_host(&query, error);
    struct rdma_cm_id *id = list ? bind_any(events, &query, list, error) : NULL;

    if (list) {
        freeaddrinfo(list);
    }
    return id;
}

struct rdma_cm_id *listen_on(struct rdma_event_channel *events, const VmfUri *uri,
                             unsigned timeout_ms, GError **error)
{
    struct rdma_cm_id *id = bind_to(events, uri, timeout_ms, error);

    if (id && CM_INT("rdma_listen", rdma_listen(id, 128)) < 0) {
        verbs_set_error(error, VMF_ERROR_CONNECT, errno, "cannot listen on port %s by RDMA",
                        vmf_uri_port(uri));
        rdma_destroy_id(g_steal_pointer(&id));
    }
    return id;
}
