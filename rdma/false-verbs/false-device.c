/* SPDX-License-Identifier: BSD-2-Clause */
/* false-device.c -- a false RDMA device itself: its context, and what it says of itself */

#include "false-objects.h"

#include <errno.h>
#include <string.h>

const char false_context_mark;

FalseDevice *false_device_new(const char *name, const FalseDeviceOps *ops, void *opaque)
{
    FalseDevice *device = g_new0(FalseDevice, 1);

    memcpy(&device->ops, ops, MIN(ops->size, sizeof(device->ops)));
    device->opaque = opaque;

    device->device.node_type = IBV_NODE_CA;
    device->device.transport_type = IBV_TRANSPORT_IB;
    g_strlcpy(device->device.name, name, sizeof(device->device.name));
    g_strlcpy(device->device.dev_name, name, sizeof(device->device.dev_name));
    g_strlcpy(device->device.dev_path, "none", sizeof(device->device.dev_path));
    g_strlcpy(device->device.ibdev_path, "none", sizeof(device->device.ibdev_path));

    device->context = (struct ibv_context){
        .device = &device->device,
        .ops = {.poll_cq = false_poll_cq,
                .req_notify_cq = false_req_notify_cq,
                .post_send = false_post_send,
                .post_recv = false_post_recv},
        .cmd_fd = -1,
        .async_fd = -1,
        .num_comp_vectors = 1,
        /* Not that of a struct verbs_context: inline functions find no newer operation. */
        .abi_compat = (void *)&false_context_mark,
    };
    pthread_mutex_init(&device->context.mutex, NULL);

    g_mutex_init(&device->lock);
    g_cond_init(&device->acknowledged);
    device->channels = g_hash_table_new(NULL, NULL);
    device->addrinfos = g_hash_table_new(NULL, NULL);
    device->regions = g_hash_table_new(NULL, NULL);
    return device;
}

void false_device_free(FalseDevice *device)
{
    if (!device) {
        return;
    }
    g_hash_table_unref(device->channels);
    g_hash_table_unref(device->addrinfos);
    g_hash_table_unref(device->regions);
    g_cond_clear(&device->acknowledged);
    g_mutex_clear(&device->lock);
    pthread_mutex_destroy(&device->context.mutex);
    g_free(device);
}

void *false_device_opaque(struct ibv_context *context)
{
    return device_of(context)->opaque;
}

int false_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    (void)context;
    *attr = (struct ibv_device_attr){
        .fw_ver = "none",
        .max_mr_size = UINT64_MAX,
        .page_size_cap = UINT64_MAX,
        .max_qp = 1 << 16,
        .max_qp_wr = 1 << 15,
        .max_sge = 32,
        .max_cq = 1 << 16,
        .max_cqe = 1 << 22,
        .max_mr = 1 << 24,
        .max_pd = 1 << 16,
        .max_qp_rd_atom = 16,
        .max_qp_init_rd_atom = 16,
        .max_pkeys = 1,
        .phys_port_cnt = 1,
    };
    return 0;
}

int false_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr)
{
    struct ibv_port_attr known = {
        .state = IBV_PORT_ACTIVE,
        .max_mtu = IBV_MTU_4096,
        .active_mtu = IBV_MTU_4096,
        .gid_tbl_len = 1,
        .max_msg_sz = 1U << 31,
        .pkey_tbl_len = 1,
        .lid = 1,
        .active_width = 2,  /* 4X */
        .active_speed = 32, /* EDR */
        .phys_state = 5,    /* LinkUp */
        .link_layer = IBV_LINK_LAYER_INFINIBAND,
    };

    (void)context;
    if (port != 1) {
        return EINVAL;
    }
    memcpy(attr, &known, offsetof(struct ibv_port_attr, port_cap_flags2));
    return 0;
}
