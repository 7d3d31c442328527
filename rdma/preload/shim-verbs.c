/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-verbs.c -- the functions of libibverbs that QEMU calls, in the preloaded library */

#include "shim.h"

#include <errno.h>

/*
 * Only functions that QEMU's migration calls with the engine's objects. Those that make contexts,
 * and those that only its paravirtual device calls, reach libibverbs as ever.
 */

/* clang-format off */

/* --- the device --- */

SHIM_FORWARD(int, ibv_query_device, ENOSYS, shim_context_engine(context),
             (struct ibv_context *context, struct ibv_device_attr *attr), (context, attr))
SHIM_FORWARD(int, ibv_query_port, ENOSYS, shim_context_engine(context),
             (struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr),
             (context, port, attr))

/* --- memory --- */

SHIM_FORWARD(struct ibv_pd *, ibv_alloc_pd, NULL, shim_context_engine(context),
             (struct ibv_context *context), (context))
SHIM_FORWARD(int, ibv_dealloc_pd, ENOSYS, shim_context_engine(pd->context),
             (struct ibv_pd *pd), (pd))
SHIM_FORWARD(struct ibv_mr *, ibv_reg_mr, NULL, shim_context_engine(pd->context),
             (struct ibv_pd *pd, void *address, size_t length, int access),
             (pd, address, length, access))
SHIM_FORWARD(struct ibv_mr *, ibv_reg_mr_iova2, NULL, shim_context_engine(pd->context),
             (struct ibv_pd *pd, void *address, size_t length, uint64_t iova, unsigned access),
             (pd, address, length, iova, access))
SHIM_FORWARD(int, ibv_dereg_mr, ENOSYS, shim_context_engine(mr->context),
             (struct ibv_mr *mr), (mr))

/* --- completions --- */

SHIM_FORWARD(struct ibv_comp_channel *, ibv_create_comp_channel, NULL,
             shim_context_engine(context), (struct ibv_context *context), (context))
SHIM_FORWARD(int, ibv_destroy_comp_channel, ENOSYS, shim_context_engine(channel->context),
             (struct ibv_comp_channel *channel), (channel))
SHIM_FORWARD(struct ibv_cq *, ibv_create_cq, NULL, shim_context_engine(context),
             (struct ibv_context *context, int cqe, void *cq_context,
              struct ibv_comp_channel *channel, int vector),
             (context, cqe, cq_context, channel, vector))
SHIM_FORWARD(int, ibv_destroy_cq, ENOSYS, shim_context_engine(cq->context),
             (struct ibv_cq *cq), (cq))
SHIM_FORWARD(int, ibv_get_cq_event, -1, shim_context_engine(channel->context),
             (struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context),
             (channel, cq, cq_context))
SHIM_FORWARD(void, ibv_ack_cq_events, (void)0, shim_context_engine(cq->context),
             (struct ibv_cq *cq, unsigned int count), (cq, count))
