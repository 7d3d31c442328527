/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-engine.h -- between the preloaded library and its engine, which is loaded late */

#ifndef VMF_RDMA_QEMU_ENGINE_H
#define VMF_RDMA_QEMU_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

/* In these tables the names of members are those of the real functions. */
#undef ibv_query_port
#undef ibv_reg_mr

#define QEMU_ENGINE_FILE "libvmferry-qemu-engine.so"
#define QEMU_ENGINE_ENTRY "vmferry_qemu_engine"
/* Both libraries are installed together, so that the numbers are equal or nothing works. */
#define QEMU_ENGINE_ABI 1

/*
 * Who wants to hear of memory that the main program has given back. Any thread may call it, and
 * with any lock of the process held. So it only sets marks: no lock, no allocation. It is not
 * called for what it does itself. A call may be under way when the watch has been taken away.
 */
typedef struct QemuDiscardWatch {
    /* madvise(2) has succeeded: MADV_DONTNEED, MADV_REMOVE or MADV_FREE. */
    void (*memory)(void *address, size_t length, int advice);
    /* fallocate(2) has punched a hole. */
    void (*file)(int fd, int64_t offset, int64_t length, int mode);
} QemuDiscardWatch;

/* What the preloaded library gives its engine. */
typedef struct QemuShim {
    uint32_t size, abi;
    /* NULL: nobody watches any more. `watch' stays valid as long as the process. */
    void (*watch_discards)(const QemuDiscardWatch *watch);
} QemuShim;

/*
 * What the engine does in place of librdmacm and libibverbs: each member is called as the function
 * of its name, for objects of the engine alone.
 */
typedef struct QemuEngine {
    uint32_t size, abi;

    /* Its contexts have this in `abi_compat'. All other verbs objects have such a context. */
    const void *context_mark;
    /* Neither pointer need be valid. */
    bool (*owns_channel)(const struct rdma_event_channel *channel);
    bool (*owns_addrinfo)(const struct rdma_addrinfo *info);

    int (*rdma_getaddrinfo)(const char *node, const char *service,
                            const struct rdma_addrinfo *hints, struct rdma_addrinfo **info);
    void (*rdma_freeaddrinfo)(struct rdma_addrinfo *info);
    struct rdma_event_channel *(*rdma_create_event_channel)(void);
    void (*rdma_destroy_event_channel)(struct rdma_event_channel *channel);
    int (*rdma_get_cm_event)(struct rdma_event_channel *channel, struct rdma_cm_event **event);
    int (*rdma_ack_cm_event)(struct rdma_cm_event *event);
    int (*rdma_create_id)(struct rdma_event_channel *channel, struct rdma_cm_id **id, void *context,
                          enum rdma_port_space ps);
    int (*rdma_destroy_id)(struct rdma_cm_id *id);
    int (*rdma_set_option)(struct rdma_cm_id *id, int level, int name, void *value, size_t size);
    int (*rdma_bind_addr)(struct rdma_cm_id *id, struct sockaddr *address);
    int (*rdma_listen)(struct rdma_cm_id *id, int backlog);
    int (*rdma_resolve_addr)(struct rdma_cm_id *id, struct sockaddr *source,
                             struct sockaddr *destination, int timeout_ms);
    int (*rdma_resolve_route)(struct rdma_cm_id *id, int timeout_ms);
    int (*rdma_connect)(struct rdma_cm_id *id, struct rdma_conn_param *param);
    int (*rdma_accept)(struct rdma_cm_id *id, struct rdma_conn_param *param);
    int (*rdma_reject)(struct rdma_cm_id *id, const void *data, uint8_t size);
    int (*rdma_disconnect)(struct rdma_cm_id *id);
    int (*rdma_create_qp)(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr);
    void (*rdma_destroy_qp)(struct rdma_cm_id *id);
    __be16 (*rdma_get_src_port)(struct rdma_cm_id *id);
    __be16 (*rdma_get_dst_port)(struct rdma_cm_id *id);

    int (*ibv_query_device)(struct ibv_context *context, struct ibv_device_attr *attr);
    int (*ibv_query_port)(struct ibv_context *context, uint8_t port,
                          struct _compat_ibv_port_attr *attr);
    struct ibv_pd *(*ibv_alloc_pd)(struct ibv_context *context);
    int (*ibv_dealloc_pd)(struct ibv_pd *pd);
    struct ibv_mr *(*ibv_reg_mr)(struct ibv_pd *pd, void *address, size_t length, int access);
    struct ibv_mr *(*ibv_reg_mr_iova2)(struct ibv_pd *pd, void *address, size_t length,
                                       uint64_t iova, unsigned access);
    int (*ibv_dereg_mr)(struct ibv_mr *mr);
    struct ibv_comp_channel *(*ibv_create_comp_channel)(struct ibv_context *context);
    int (*ibv_destroy_comp_channel)(struct ibv_comp_channel *channel);
    struct ibv_cq *(*ibv_create_cq)(struct ibv_context *context, int cqe, void *cq_context,
                                    struct ibv_comp_channel *channel, int vector);
    int (*ibv_destroy_cq)(struct ibv_cq *cq);
    int (*ibv_get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **cq,
                            void **cq_context);
    void (*ibv_ack_cq_events)(struct ibv_cq *cq, unsigned count);
} QemuEngine;

/* The engine's only symbol. NULL with a message: it does not fit this shim. */
const QemuEngine *vmferry_qemu_engine(const QemuShim *shim);

#endif
