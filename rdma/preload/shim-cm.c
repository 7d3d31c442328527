/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-cm.c -- the functions of librdmacm that QEMU calls, in the preloaded library */

#include "shim.h"

/*
 * Only functions that take or make an object which may be the engine's. All others, such as
 * rdma_event_str(), reach librdmacm as ever.
 */

/* clang-format off */

/* --- addresses and channels --- */

SHIM_MAKE(int, rdma_getaddrinfo, -1,
          (const char *node, const char *service, const struct rdma_addrinfo *hints,
           struct rdma_addrinfo **info),
          (node, service, hints, info))
SHIM_FORWARD(void, rdma_freeaddrinfo, (void)0, shim_addrinfo_engine(info),
             (struct rdma_addrinfo *info), (info))

SHIM_MAKE(struct rdma_event_channel *, rdma_create_event_channel, NULL, (void), ())
SHIM_FORWARD(void, rdma_destroy_event_channel, (void)0, shim_channel_engine(channel),
             (struct rdma_event_channel *channel), (channel))
SHIM_FORWARD(int, rdma_get_cm_event, -1, shim_channel_engine(channel),
             (struct rdma_event_channel *channel, struct rdma_cm_event **event), (channel, event))
SHIM_FORWARD(int, rdma_ack_cm_event, -1, shim_event_engine(event),
             (struct rdma_cm_event *event), (event))

/* --- ids --- */

SHIM_FORWARD(int, rdma_create_id, -1, shim_channel_engine(channel),
             (struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
              enum rdma_port_space ps),
             (channel, id, context, ps))
SHIM_FORWARD(int, rdma_destroy_id, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id), (id))
SHIM_FORWARD(int, rdma_set_option, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, int level, int option, void *value, size_t size),
             (id, level, option, value, size))
SHIM_FORWARD(int, rdma_bind_addr, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, struct sockaddr *address), (id, address))
SHIM_FORWARD(int, rdma_listen, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, int backlog), (id, backlog))
SHIM_FORWARD(int, rdma_resolve_addr, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, struct sockaddr *source, struct sockaddr *destination,
              int timeout_ms),
             (id, source, destination, timeout_ms))
SHIM_FORWARD(int, rdma_resolve_route, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, int timeout_ms), (id, timeout_ms))
SHIM_FORWARD(int, rdma_connect, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, struct rdma_conn_param *param), (id, param))
SHIM_FORWARD(int, rdma_accept, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, struct rdma_conn_param *param), (id, param))
SHIM_FORWARD(int, rdma_reject, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, const void *data, uint8_t size), (id, data, size))
SHIM_FORWARD(int, rdma_disconnect, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id), (id))
SHIM_FORWARD(int, rdma_create_qp, -1, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr),
             (id, pd, attr))
SHIM_FORWARD(void, rdma_destroy_qp, (void)0, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id), (id))
SHIM_FORWARD(__be16, rdma_get_src_port, 0, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id), (id))
SHIM_FORWARD(__be16, rdma_get_dst_port, 0, shim_channel_engine(id->channel),
             (struct rdma_cm_id *id), (id))
