/* SPDX-License-Identifier: BSD-2-Clause */
/* false-address.c -- address lists without a look-up: their text is what the backend gets */

#include "false-objects.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

#include "base/decimal.h"

static in_port_t port_of(const char *service)
{
    uint64_t port;

    return decimal_is(service, UINT16_MAX, &port) ? htons((uint16_t)port) : 0;
}

/* An IPv6 address in digits, perhaps with a scope after '%'. */
static bool set_v6(struct sockaddr_in6 *address, const char *node)
{
    g_auto(GStrv) parts = g_strsplit(node, "%", 2);

    if (!parts[0] || inet_pton(AF_INET6, parts[0], &address->sin6_addr) != 1) {
        return false;
    }
    address->sin6_family = AF_INET6;
    if (parts[1]) {
        uint64_t scope;

        address->sin6_scope_id =
            decimal_is(parts[1], UINT32_MAX, &scope) ? (uint32_t)scope : if_nametoindex(parts[1]);
    }
    return true;
}

static socklen_t set_address(FalseAddrinfo *info)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&info->address;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&info->address;

    if (set_v6(v6, info->node)) {
        v6->sin6_port = port_of(info->service);
        return sizeof(*v6);
    }
    v4->sin_family = AF_INET;
    v4->sin_port = port_of(info->service);
    if (inet_pton(AF_INET, info->node, &v4->sin_addr) != 1) {
        v4->sin_addr.s_addr = htonl(*info->node ? INADDR_LOOPBACK : INADDR_ANY);
    }
    return sizeof(*v4);
}

int false_getaddrinfo(FalseDevice *device, const char *node, const char *service,
                      const struct rdma_addrinfo *hints, struct rdma_addrinfo **info)
{
    const int flags = hints ? hints->ai_flags : 0;
    FalseAddrinfo *made;
    socklen_t size;

    if (!node && (!service || !(flags & RAI_PASSIVE))) {
        errno = EINVAL;
        return -1;
    }
    made = g_new0(FalseAddrinfo, 1);
    made->node = g_strdup(node ? node : "");
    made->service = g_strdup(service ? service : "");
    size = set_address(made);
    made->info.ai_flags = flags;
    made->info.ai_family = made->address.ss_family;
    made->info.ai_qp_type = IBV_QPT_RC;
    made->info.ai_port_space = hints && hints->ai_port_space ? hints->ai_port_space : RDMA_PS_TCP;
    if (flags & RAI_PASSIVE) {
        made->info.ai_src_addr = (struct sockaddr *)&made->address;
        made->info.ai_src_len = size;
    } else {
        made->info.ai_dst_addr = (struct sockaddr *)&made->address;
        made->info.ai_dst_len = size;
    }
    g_mutex_lock(&device->lock);
    g_hash_table_add(device->addrinfos, made);
    g_mutex_unlock(&device->lock);
    *info = &made->info;
    return 0;
}

void false_freeaddrinfo(FalseDevice *device, struct rdma_addrinfo *info)
{
    FalseAddrinfo *ours = (FalseAddrinfo *)info;

    g_mutex_lock(&device->lock);
    g_hash_table_remove(device->addrinfos, ours);
    g_mutex_unlock(&device->lock);
    g_free(ours->node);
    g_free(ours->service);
    g_free(ours);
}

bool false_addrinfo_owned(FalseDevice *device, const struct rdma_addrinfo *info)
{
    bool owned;

    g_mutex_lock(&device->lock);
    owned = g_hash_table_contains(device->addrinfos, info);
    g_mutex_unlock(&device->lock);
    return owned;
}

void address_names_locked(FalseDevice *device, const struct sockaddr *address, char **node,
                          char **service)
{
    const bool v6 = address->sa_family == AF_INET6;
    char digits[INET6_ADDRSTRLEN] = "";
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, device->addrinfos);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        const FalseAddrinfo *info = key;

        if (address == (const struct sockaddr *)&info->address) {
            *node = g_strdup(info->node);
            *service = g_strdup(info->service);
            return;
        }
    }
    inet_ntop(address->sa_family,
              v6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                 : (const void *)&((const struct sockaddr_in *)address)->sin_addr,
              digits, sizeof(digits));
    *node = g_strdup(digits);
    *service = g_strdup_printf("%u", ntohs(v6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                              : ((const struct sockaddr_in *)address)->sin_port));
}
