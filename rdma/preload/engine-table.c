/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-table.c -- the engine's only symbol: the functions of its device, as a table */

#include "engine-backend.h"

#include <glib.h>

#include "false-verbs/false-calls.h"

/* Made when the preloaded library asks for the table, which it does once. */
static FalseDevice *device;

static bool owns_channel(const struct rdma_event_channel *channel)
{
    return false_channel_owned(device, channel);
}

static bool owns_addrinfo(const struct rdma_addrinfo *info)
{
    return false_addrinfo_owned(device, info);
}

static int getaddrinfo_of_device(const char *node, const char *service,
                                 const struct rdma_addrinfo *hints, struct rdma_addrinfo **info)
{
    return false_getaddrinfo(device, node, service, hints, info);
}

static void freeaddrinfo_of_device(struct rdma_addrinfo *info)
{
    false_freeaddrinfo(device, info);
}

static struct rdma_event_channel *create_event_channel_of_device(void)
{
    return false_create_event_channel(device);
}

static int query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
    return false_query_port(context, port, (struct ibv_port_attr *)attr);
}

static const QemuEngine table = {
    .size = sizeof(table),
    .abi = QEMU_ENGINE_ABI,
    .context_mark = &false_context_mark,
    .owns_channel = owns_channel,
    .owns_addrinfo = owns_addrinfo,
    .rdma_getaddrinfo = getaddrinfo_of_device,
    .rdma_freeaddrinfo = freeaddrinfo_of_device,
    .rdma_create_event_channel = create_event_channel_of_device,
    .rdma_destroy_event_channel = false_destroy_event_channel,
    .rdma_get_cm_event = false_get_cm_event,
    .rdma_ack_cm_event = false_ack_cm_event,
    .rdma_create_id = false_create_id,
    .rdma_destroy_id = false_destroy_id,
    .rdma_set_option = false_set_option,
    .rdma_bind_addr = false_bind_addr,
    .rdma_listen = false_listen,
    .rdma_resolve_addr = false_resolve_addr,
    .rdma_resolve_route = false_resolve_route,
    .rdma_connect = false_connect,
    .rdma_accept = false_accept,
    .rdma_reject = false_reject,
    .rdma_disconnect = false_disconnect,
    .rdma_create_qp = false_create_qp,
    .rdma_destroy_qp = false_destroy_qp,
    .rdma_get_src_port = false_get_src_port,
    .rdma_get_dst_port = false_get_dst_port,
    .ibv_query_device = false_query_device,
    .ibv_query_port = query_port,
    .ibv_alloc_pd = false_alloc_pd,
    .ibv_dealloc_pd = false_dealloc_pd,
    .ibv_reg_mr = false_reg_mr,
    .ibv_reg_mr_iova2 = false_reg_mr_iova2,
    .ibv_dereg_mr = false_dereg_mr,
    .ibv_create_comp_channel = false_create_comp_channel,
    .ibv_destroy_comp_channel = false_destroy_comp_channel,
    .ibv_create_cq = false_create_cq,
    .ibv_destroy_cq = false_destroy_cq,
    .ibv_get_cq_event = false_get_cq_event,
    .ibv_ack_cq_events = false_ack_cq_events,
};

__attribute__((visibility("default"))) const QemuEngine *vmferry_qemu_engine(const QemuShim *shim)
{
    if (shim->abi != QEMU_ENGINE_ABI || shim->size < sizeof(*shim)) {
        g_printerr("vmferry: the preloaded library is of another version than its engine\n");
        return NULL;
    }
    device = engine_device_new(shim);
    return &table;
}
