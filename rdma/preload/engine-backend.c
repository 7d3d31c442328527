/* SPDX-License-Identifier: BSD-2-Clause */
/* engine-backend.c -- what stands behind the device that QEMU's migration finds */

#include "engine-backend.h"

#include "local-qemu/local-destination.h"
#include "local-qemu/local-discards.h"
#include "local-qemu/local-link.h"
#include "local-qemu/local-source.h"

/* NULL until the id connects or listens. */
static LocalLink *link_of(struct rdma_cm_id *id)
{
    return false_id_opaque(id);
}

/* --- connections --- */

static int connect_to(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    (void)opaque;
    return local_source_connect(id, param);
}

static int listen_on(void *opaque, struct rdma_cm_id *id, int backlog)
{
    (void)opaque;
    (void)backlog;
    return local_destination_listen(id);
}

static int accept_it(void *opaque, struct rdma_cm_id *id, const struct rdma_conn_param *param)
{
    LocalLink *link = link_of(id);

    (void)opaque;
    (void)param;
    local_link_accepted(link, id);
    link->ops->accepted(link);
    return 0;
}

static int disconnect(void *opaque, struct rdma_cm_id *id)
{
    LocalLink *link = link_of(id);

    (void)opaque;
    if (link && link->ops->disconnected) {
        link->ops->disconnected(link);
    }
    return 0;
}

static void id_destroyed(void *opaque, struct rdma_cm_id *id)
{
    LocalLink *link = link_of(id);

    (void)opaque;
    if (link) {
        link->ops->closed(link);
        local_link_free(link);
    }
}

/* --- queue pairs --- */

static LocalLink *link_of_qp(struct ibv_qp *qp)
{
    return link_of(false_qp_id(qp));
}

static void qp_destroyed(void *opaque, struct ibv_qp *qp)
{
    LocalLink *link = link_of_qp(qp);

    (void)opaque;
    if (link) {
        local_link_set_qp(link, NULL);
    }
}

static int post_send(void *opaque, struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    (void)opaque;
    return local_link_post(link_of_qp(qp), qp, wr);
}

static void receive_posted(void *opaque, struct ibv_qp *qp)
{
    LocalLink *link = link_of_qp(qp);

    (void)opaque;
    if (link) {
        local_link_receive_posted(link);
    }
}

static void polled(void *opaque, struct ibv_qp *qp, struct ibv_wc *wc)
{
    LocalLink *link = link_of_qp(qp);

    (void)opaque;
    if (link && link->ops->polled) {
        link->ops->polled(link, wc);
    }
}

static int registered(void *opaque, struct ibv_mr *mr, unsigned access)
{
    (void)opaque;
    (void)access;
    local_link_registered(mr);
    return 0;
}

/* --- the device --- */

static const FalseDeviceOps backend_ops = {
    .size = sizeof(backend_ops),
    .connect = connect_to,
    .listen = listen_on,
    .accept = accept_it,
    .disconnect = disconnect,
    .id_destroyed = id_destroyed,
    .qp_destroyed = qp_destroyed,
    .post_send = post_send,
    .receive_posted = receive_posted,
    .polled = polled,
    .mr_registered = registered,
};

static void memory_discarded(void *address, size_t length, int advice)
{
    (void)advice;
    local_discards_memory(address, length);
}

static void file_discarded(int fd, int64_t offset, int64_t length, int mode)
{
    (void)mode;
    local_discards_file(fd, (uint64_t)offset, (uint64_t)length);
}

FalseDevice *engine_device_new(const QemuShim *shim)
{
    static const QemuDiscardWatch watch = {.memory = memory_discarded, .file = file_discarded};

    if (shim) { /* a test has no preloaded library */
        shim->watch_discards(&watch);
    }
    return false_device_new("vmferry", &backend_ops, (void *)shim);
}
