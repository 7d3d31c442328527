/* SPDX-License-Identifier: BSD-2-Clause */
/* false-calls.h -- a false RDMA device, called as librdmacm and libibverbs are */

#ifndef VMF_RDMA_FALSE_CALLS_H
#define VMF_RDMA_FALSE_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include "false-backend.h"

/*
 * Every function does what the function with rdma_ or ibv_ in place of false_ does, by its manual
 * page. It fails as that one does: rdma_... return -1 with errno, ibv_... an errno. Functions that
 * return a pointer return NULL with errno. Only what differs is said here.
 *
 * ibv_post_send(), ibv_post_recv(), ibv_poll_cq() and ibv_req_notify_cq() are inline in
 * <infiniband/verbs.h>, and reach this device by the context's operations.
 */

/* --- whose object is it? --- */

/* In ibv_context.abi_compat of every false device, where a real one has something else. */
extern const char false_context_mark;

static inline bool false_context_owned(const struct ibv_context *context)
{
    return context && context->abi_compat == &false_context_mark;
}

/*
 * Whether the pointer is a channel or an address list of the device. Neither need be valid. A
 * channel that was destroyed counts as long as it has ids.
 */
bool false_channel_owned(FalseDevice *device, const struct rdma_event_channel *channel);
bool false_addrinfo_owned(FalseDevice *device, const struct rdma_addrinfo *info);

/* --- addresses --- */

/*
 * Looks nothing up. It makes one entry for any text, and remembers the text for the backend. An
 * entry of a name has the address 127.0.0.1, which means nothing.
 */
int false_getaddrinfo(FalseDevice *device, const char *node, const char *service,
                      const struct rdma_addrinfo *hints, struct rdma_addrinfo **info);
void false_freeaddrinfo(FalseDevice *device, struct rdma_addrinfo *info);

/* --- event channels --- */

/* The descriptor is readable exactly while events wait. It blocks unless the program changes it. */
struct rdma_event_channel *false_create_event_channel(FalseDevice *device);
/* Ids of the channel may still be used and destroyed afterwards. They have no events then. */
void false_destroy_event_channel(struct rdma_event_channel *channel);
/* Signals do not interrupt it. */
int false_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event);
int false_ack_cm_event(struct rdma_cm_event *event);

/* --- ids --- */

int false_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
                    enum rdma_port_space ps);
/* Waits until each event of the id that was read is acknowledged. Destroys its queue pair, too. */
int false_destroy_id(struct rdma_cm_id *id);
/* Accepts every option, and does nothing. */
int false_set_option(struct rdma_cm_id *id, int level, int name, void *value, size_t size);
int false_bind_addr(struct rdma_cm_id *id, struct sockaddr *address);
int false_listen(struct rdma_cm_id *id, int backlog);
/* The event of a resolution is there when the call returns. */
int false_resolve_addr(struct rdma_cm_id *id, struct sockaddr *source, struct sockaddr *destination,
                       int timeout_ms);
int false_resolve_route(struct rdma_cm_id *id, int timeout_ms);
int false_connect(struct rdma_cm_id *id, struct rdma_conn_param *param);
int false_accept(struct rdma_cm_id *id, struct rdma_conn_param *param);
int false_reject(struct rdma_cm_id *id, const void *data, uint8_t size);
int false_disconnect(struct rdma_cm_id *id);
__be16 false_get_src_port(struct rdma_cm_id *id);
__be16 false_get_dst_port(struct rdma_cm_id *id);

/* --- queue pairs --- */

/* Reliable connections only, and no shared receive queue. The domain and both CQs must be given. */
int false_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr);
void false_destroy_qp(struct rdma_cm_id *id);

/* --- the device --- */

int false_query_device(struct ibv_context *context, struct ibv_device_attr *attr);
/* Writes no member that was added to the structure after link_layer and flags. */
int false_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr);

/* --- memory --- */

struct ibv_pd *false_alloc_pd(struct ibv_context *context);
int false_dealloc_pd(struct ibv_pd *pd);
struct ibv_mr *false_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access);
struct ibv_mr *false_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                  unsigned access);
int false_dereg_mr(struct ibv_mr *mr);

/* --- completions --- */

struct ibv_comp_channel *false_create_comp_channel(struct ibv_context *context);
int false_destroy_comp_channel(struct ibv_comp_channel *channel);
/* It never overflows, but grows instead. */
struct ibv_cq *false_create_cq(struct ibv_context *context, int cqe, void *cq_context,
                               struct ibv_comp_channel *channel, int vector);
/* Waits until each event of the queue that was read is acknowledged. */
int false_destroy_cq(struct ibv_cq *cq);
/* Signals do not interrupt it. */
int false_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context);
void false_ack_cq_events(struct ibv_cq *cq, unsigned count);

#endif
