/* SPDX-License-Identifier: BSD-2-Clause */
/* false-qp.c -- queue pairs of a false RDMA device: their life, and what goes over them */

#include "false-objects.h"

#include <errno.h>
#include <string.h>

/* A request that the backend has. */
typedef struct FalseSend {
    uint64_t wr_id, serial;
    enum ibv_wc_opcode opcode;
    uint32_t length;
    bool signaled;
} FalseSend;

typedef struct FalseReceive {
    uint64_t wr_id;
    int count;
    struct ibv_sge sges[];
} FalseReceive;

/* --- beginning and end --- */

struct rdma_cm_id *false_qp_id(struct ibv_qp *qp)
{
    return &qp_of(qp)->id->cm;
}

void false_qp_set_opaque(struct ibv_qp *qp, void *opaque)
{
    FalseDevice *device = device_of(qp->context);

    g_mutex_lock(&device->lock);
    qp_of(qp)->opaque = opaque;
    g_mutex_unlock(&device->lock);
}

void *false_qp_opaque(struct ibv_qp *qp)
{
    FalseDevice *device = device_of(qp->context);
    void *opaque;

    g_mutex_lock(&device->lock);
    opaque = qp_of(qp)->opaque;
    g_mutex_unlock(&device->lock);
    return opaque;
}

static FalseQp *qp_new(FalseId *id, struct ibv_pd *pd, const struct ibv_qp_init_attr *attr)
{
    FalseQp *qp = g_new0(FalseQp, 1);

    qp->id = id;
    qp->cap = attr->cap;
    qp->all_signaled = attr->sq_sig_all;
    qp->qp.context = pd->context;
    qp->qp.qp_context = attr->qp_context;
    qp->qp.pd = pd;
    qp->qp.send_cq = attr->send_cq;
    qp->qp.recv_cq = attr->recv_cq;
    qp->qp.state = IBV_QPS_INIT;
    qp->qp.qp_type = attr->qp_type;
    g_queue_init(&qp->sends);
    g_queue_init(&qp->receives);
    return qp;
}

int false_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    FalseDevice *device = id_of(id)->channel->device;
    int error = 0;
    FalseQp *qp;

    if (id->qp || !id->verbs || !pd || pd->context != id->verbs || !attr->send_cq ||
        !attr->recv_cq || attr->srq || attr->qp_type != IBV_QPT_RC) {
        errno = EINVAL;
        return -1;
    }
    qp = qp_new(id_of(id), pd, attr);
    g_mutex_lock(&device->lock);
    qp->qp.qp_num = ++device->last_qp;
    qp->qp.handle = qp->qp.qp_num;
    pd_of(pd)->users++;
    cq_of(attr->send_cq)->users++;
    cq_of(attr->recv_cq)->users++;
    id->qp = &qp->qp;
    g_mutex_unlock(&device->lock);
    if (device->ops.qp_created) {
        error = device->ops.qp_created(device->opaque, &qp->qp);
    }
    if (error) {
        false_destroy_qp(id);
        errno = error;
        return -1;
    }
    return 0;
}

void false_destroy_qp(struct rdma_cm_id *id)
{
    FalseDevice *device = id_of(id)->channel->device;
    FalseQp *qp = qp_of(id->qp);

    if (!qp) {
        return;
    }
    g_mutex_lock(&device->lock);
    qp->dying = true;
    id->qp = NULL;
    g_mutex_unlock(&device->lock);
    if (device->ops.qp_destroyed) {
        device->ops.qp_destroyed(device->opaque, &qp->qp);
    }
    g_mutex_lock(&device->lock);
    cq_forget_locked(cq_of(qp->qp.send_cq), qp);
    cq_forget_locked(cq_of(qp->qp.recv_cq), qp);
    cq_of(qp->qp.send_cq)->users--;
    cq_of(qp->qp.recv_cq)->users--;
    pd_of(qp->qp.pd)->users--;
    g_mutex_unlock(&device->lock);
    g_queue_clear_full(&qp->sends, g_free);
    g_queue_clear_full(&qp->receives, g_free);
    g_free(qp);
}

/* --- the state of error --- */

static void complete_send_locked(FalseQp *qp, const FalseSend *send, enum ibv_wc_status status)
{
    cq_complete_locked(qp,
                       &(struct ibv_wc){.wr_id = send->wr_id,
                                        .status = status,
                                        .opcode = send->opcode,
                                        .byte_len = send->length},
                       true, false);
}

static void complete_receive_locked(FalseQp *qp, uint64_t wr_id, enum ibv_wc_status status,
                                    uint32_t length, bool solicited)
{
    cq_complete_locked(
        qp,
        &(struct ibv_wc){
            .wr_id = wr_id, .status = status, .opcode = IBV_WC_RECV, .byte_len = length},
        false, solicited);
}

void qp_fail_locked(FalseQp *qp)
{
    FalseSend *send;
    FalseReceive *receive;

    qp->qp.state = IBV_QPS_ERR;
    while ((send = g_queue_pop_head(&qp->sends))) {
        complete_send_locked(qp, send, IBV_WC_WR_FLUSH_ERR);
        g_free(send);
    }
    while ((receive = g_queue_pop_head(&qp->receives))) {
        complete_receive_locked(qp, receive->wr_id, IBV_WC_WR_FLUSH_ERR, 0, false);
        g_free(receive);
    }
}

void false_qp_flush(struct ibv_qp *qp)
{
    FalseDevice *device = device_of(qp->context);

    g_mutex_lock(&device->lock);
    if (!qp_of(qp)->dying) {
        qp_fail_locked(qp_of(qp));
    }
    g_mutex_unlock(&device->lock);
}

/* --- sends --- */

static enum ibv_wc_opcode opcode_of(enum ibv_wr_opcode opcode)
{
    switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
        return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
        return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
        return IBV_WC_COMP_SWAP;
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
        return IBV_WC_FETCH_ADD;
    default:
        return IBV_WC_SEND;
    }
}

/* What is sent inline is copied, and needs no registration. */
static bool has_memory_locked(FalseQp *qp, const struct ibv_send_wr *wr)
{
    const bool writes = wr->opcode == IBV_WR_RDMA_READ;

    for (int i = 0; i < wr->num_sge && !(wr->send_flags & IBV_SEND_INLINE); i++) {
        const struct ibv_sge *sge = &wr->sg_list[i];

        if (sge->length && !region_memory_locked(qp, sge->lkey, sge->addr, sge->length,
                                                 writes ? IBV_ACCESS_LOCAL_WRITE : 0)) {
            return false;
        }
    }
    return true;
}

static int check_send_locked(const FalseQp *qp, const struct ibv_send_wr *wr)
{
    if (qp->qp.state == IBV_QPS_INIT || wr->num_sge < 0 ||
        (unsigned)wr->num_sge > qp->cap.max_send_sge) {
        return EINVAL;
    }
    return qp->sends_used < qp->cap.max_send_wr ? 0 : ENOMEM;
}

/* Takes a place for the request. 0 with *serial: the backend gets it. 0 without: it has failed. */
static int begin_send_locked(FalseQp *qp, const struct ibv_send_wr *wr, uint64_t *serial)
{
    int error = check_send_locked(qp, wr);
    FalseSend *send;

    *serial = 0;
    if (error) {
        return error;
    }
    send = g_new0(FalseSend, 1);
    send->wr_id = wr->wr_id;
    send->opcode = opcode_of(wr->opcode);
    send->signaled = qp->all_signaled || wr->send_flags & IBV_SEND_SIGNALED;
    for (int i = 0; i < wr->num_sge; i++) {
        send->length += wr->sg_list[i].length;
    }
    qp->sends_used++;
    if (qp->qp.state == IBV_QPS_ERR) {
        complete_send_locked(qp, send, IBV_WC_WR_FLUSH_ERR);
        g_free(send);
    } else if (!has_memory_locked(qp, wr)) {
        complete_send_locked(qp, send, IBV_WC_LOC_PROT_ERR);
        g_free(send);
        qp_fail_locked(qp);
    } else {
        *serial = send->serial = ++qp->last_serial;
        g_queue_push_tail(&qp->sends, send);
    }
    return 0;
}

/* Takes back a request that the backend refused. false: it has been flushed meanwhile. */
static bool undo_send_locked(FalseQp *qp, uint64_t serial)
{
    for (GList *at = qp->sends.tail; at; at = at->prev) {
        FalseSend *send = at->data;

        if (send->serial == serial) {
            g_queue_delete_link(&qp->sends, at);
            g_free(send);
            qp->sends_used--;
            return true;
        }
    }
    return false;
}

static int post_one(FalseQp *qp, const struct ibv_send_wr *wr)
{
    FalseDevice *device = device_of(qp->qp.context);
    uint64_t serial;
    int error;

    g_mutex_lock(&device->lock);
    error = begin_send_locked(qp, wr, &serial);
    g_mutex_unlock(&device->lock);
    if (error || !serial) {
        return error;
    }
    error = device->ops.post_send ? device->ops.post_send(device->opaque, &qp->qp, wr) : EOPNOTSUPP;
    if (error) {
        g_mutex_lock(&device->lock);
        if (!undo_send_locked(qp, serial)) {
            error = 0;
        }
        g_mutex_unlock(&device->lock);
    }
    return error;
}

int false_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    for (; wr; wr = wr->next) {
        int error = post_one(qp_of(qp), wr);

        if (error) {
            *bad = wr;
            return error;
        }
    }
    return 0;
}

bool false_qp_complete_send(struct ibv_qp *qp, uint64_t wr_id, enum ibv_wc_status status)
{
    FalseQp *ours = qp_of(qp);
    FalseDevice *device = device_of(qp->context);
    bool found;
    GList *at;

    g_mutex_lock(&device->lock);
    for (at = ours->dying ? NULL : ours->sends.head; at; at = at->next) {
        if (((FalseSend *)at->data)->wr_id == wr_id) {
            break;
        }
    }
    found = at;
    if (found) {
        g_autofree FalseSend *send = at->data;

        g_queue_delete_link(&ours->sends, at);
        if (send->signaled || status != IBV_WC_SUCCESS) {
            complete_send_locked(ours, send, status);
        } else {
            ours->sends_used--;
        }
        if (status != IBV_WC_SUCCESS) {
            qp_fail_locked(ours);
        }
    }
    g_mutex_unlock(&device->lock);
    return found;
}

/* --- receives --- */

static int post_receive_locked(FalseQp *qp, const struct ibv_recv_wr *wr)
{
    FalseReceive *receive;

    if (wr->num_sge < 0 || (unsigned)wr->num_sge > qp->cap.max_recv_sge) {
        return EINVAL;
    }
    if (qp->receives_used >= qp->cap.max_recv_wr) {
        return ENOMEM;
    }
    qp->receives_used++;
    if (qp->qp.state == IBV_QPS_ERR) {
        complete_receive_locked(qp, wr->wr_id, IBV_WC_WR_FLUSH_ERR, 0, false);
        return 0;
    }
    receive = g_malloc(sizeof(*receive) + (size_t)wr->num_sge * sizeof(receive->sges[0]));
    receive->wr_id = wr->wr_id;
    receive->count = wr->num_sge;
    if (wr->num_sge) {
        memcpy(receive->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(receive->sges[0]));
    }
    g_queue_push_tail(&qp->receives, receive);
    return 0;
}

int false_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    FalseQp *ours = qp_of(qp);
    FalseDevice *device = device_of(qp->context);
    bool posted = false;
    int error = 0;

    g_mutex_lock(&device->lock);
    for (; wr && !error; wr = error ? wr : wr->next) {
        error = post_receive_locked(ours, wr);
        posted |= !error && ours->qp.state != IBV_QPS_ERR;
    }
    g_mutex_unlock(&device->lock);
    if (error) {
        *bad = wr;
    }
    if (posted && device->ops.receive_posted) {
        device->ops.receive_posted(device->opaque, qp);
    }
    return error;
}

/* Spreads the pieces over the receive's memory. */
static enum ibv_wc_status scatter_locked(FalseQp *qp, const FalseReceive *receive,
                                         const struct iovec *pieces, unsigned count)
{
    uint64_t room = 0;
    uint8_t *place = NULL;
    int next = 0;

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *from = pieces[i].iov_base;
        uint64_t left = pieces[i].iov_len;

        while (left) {
            uint64_t part;

            if (!room) {
                const struct ibv_sge *sge = &receive->sges[next];

                if (next++ == receive->count) {
                    return IBV_WC_LOC_LEN_ERR;
                }
                room = sge->length;
                place =
                    region_memory_locked(qp, sge->lkey, sge->addr, room, IBV_ACCESS_LOCAL_WRITE);
                if (room && !place) {
                    return IBV_WC_LOC_PROT_ERR;
                }
                continue;
            }
            part = MIN(room, left);
            memcpy(place, from, part);
            place += part;
            room -= part;
            from += part;
            left -= part;
        }
    }
    return IBV_WC_SUCCESS;
}

bool false_qp_deliver(struct ibv_qp *qp, const struct iovec *pieces, unsigned count, bool solicited)
{
    FalseQp *ours = qp_of(qp);
    FalseDevice *device = device_of(qp->context);
    g_autofree FalseReceive *receive = NULL;
    enum ibv_wc_status status;
    size_t length = 0;

    for (unsigned i = 0; i < count; i++) {
        length += pieces[i].iov_len;
    }
    g_mutex_lock(&device->lock);
    if (!ours->dying) {
        receive = g_queue_pop_head(&ours->receives);
    }
    if (receive) {
        status = length <= UINT32_MAX ? scatter_locked(ours, receive, pieces, count)
                                      : IBV_WC_LOC_LEN_ERR;
        complete_receive_locked(ours, receive->wr_id, status, (uint32_t)length, solicited);
        if (status != IBV_WC_SUCCESS) {
            qp_fail_locked(ours);
        }
    }
    g_mutex_unlock(&device->lock);
    return receive;
}
