/* SPDX-License-Identifier: BSD-2-Clause */
/* false-qp.c -- queue pairs of a false RDMA device: their life, and what goes over them */

#include "false-objects.h"

#include <errno.h>
#include <string.h>

/* The longest queues and the most pieces of a request, as false_query_device() says. */
#define WR_MAX (1U << 15)
#define SGE_MAX 32

/* --- requests --- */

static void requests_init(FalseRequests *requests, FalseQp *qp, unsigned count, unsigned sges)
{
    g_queue_init(&requests->idle);
    g_queue_init(&requests->posted);
    requests->all = g_new0(FalseRequest, count);
    requests->sges = g_new0(struct ibv_sge, (gsize)count * sges);
    for (unsigned i = 0; i < count; i++) {
        FalseRequest *request = &requests->all[i];

        request->link.data = request;
        request->qp = qp;
        request->idle = &requests->idle;
        request->sges = requests->sges + (gsize)i * sges;
        g_queue_push_tail_link(&requests->idle, &request->link);
    }
}

static void requests_clear(FalseRequests *requests)
{
    g_free(requests->sges);
    g_free(requests->all);
}

/* One that is in no queue from then on. NULL: all are in use. */
static FalseRequest *take_idle_locked(FalseRequests *requests, uint64_t wr_id)
{
    GList *link = g_queue_pop_head_link(&requests->idle);
    FalseRequest *request = link ? link->data : NULL;

    if (request) {
        request->wc = (struct ibv_wc){.wr_id = wr_id, .qp_num = request->qp->qp.qp_num};
    }
    return request;
}

static FalseRequest *take_posted_locked(FalseRequests *requests)
{
    GList *link = g_queue_pop_head_link(&requests->posted);

    return link ? link->data : NULL;
}

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
    requests_init(&qp->sends, qp, attr->cap.max_send_wr, 0);
    requests_init(&qp->receives, qp, attr->cap.max_recv_wr, attr->cap.max_recv_sge);
    return qp;
}

static bool cap_fits(const struct ibv_qp_cap *cap)
{
    return cap->max_send_wr <= WR_MAX && cap->max_recv_wr <= WR_MAX &&
           cap->max_send_sge <= SGE_MAX && cap->max_recv_sge <= SGE_MAX;
}

int false_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    FalseDevice *device = id_of(id)->channel->device;
    int error = 0;
    FalseQp *qp;

    if (id->qp || !id->verbs || !pd || pd->context != id->verbs || !attr->send_cq ||
        !attr->recv_cq || attr->srq || attr->qp_type != IBV_QPT_RC || !cap_fits(&attr->cap)) {
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
    requests_clear(&qp->sends);
    requests_clear(&qp->receives);
    g_free(qp);
}

/* --- the state of error --- */

static void complete_send_locked(FalseQp *qp, FalseRequest *send, enum ibv_wc_status status)
{
    send->wc.status = status;
    cq_complete_locked(cq_of(qp->qp.send_cq), send, false);
}

static void complete_receive_locked(FalseQp *qp, FalseRequest *receive, enum ibv_wc_status status,
                                    uint32_t length, bool solicited)
{
    receive->wc.status = status;
    receive->wc.byte_len = length;
    cq_complete_locked(cq_of(qp->qp.recv_cq), receive, solicited);
}

void qp_fail_locked(FalseQp *qp)
{
    FalseRequest *request;

    qp->qp.state = IBV_QPS_ERR;
    while ((request = take_posted_locked(&qp->sends))) {
        complete_send_locked(qp, request, IBV_WC_WR_FLUSH_ERR);
    }
    while ((request = take_posted_locked(&qp->receives))) {
        complete_receive_locked(qp, request, IBV_WC_WR_FLUSH_ERR, 0, false);
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
    return qp->sends.idle.length ? 0 : ENOMEM;
}

/* Takes a place for the request. 0 with *serial: the backend gets it. 0 without: it has failed. */
static int begin_send_locked(FalseQp *qp, const struct ibv_send_wr *wr, uint64_t *serial)
{
    int error = check_send_locked(qp, wr);
    FalseRequest *send;

    *serial = 0;
    if (error) {
        return error;
    }
    send = take_idle_locked(&qp->sends, wr->wr_id);
    send->wc.opcode = opcode_of(wr->opcode);
    send->signaled = qp->all_signaled || wr->send_flags & IBV_SEND_SIGNALED;
    for (int i = 0; i < wr->num_sge; i++) {
        send->wc.byte_len += wr->sg_list[i].length;
    }
    if (qp->qp.state == IBV_QPS_ERR) {
        complete_send_locked(qp, send, IBV_WC_WR_FLUSH_ERR);
    } else if (!has_memory_locked(qp, wr)) {
        complete_send_locked(qp, send, IBV_WC_LOC_PROT_ERR);
        qp_fail_locked(qp);
    } else {
        *serial = send->serial = ++qp->last_serial;
        g_queue_push_tail_link(&qp->sends.posted, &send->link);
    }
    return 0;
}

/* Takes back a request that the backend refused. false: it has been flushed meanwhile. */
static bool undo_send_locked(FalseQp *qp, uint64_t serial)
{
    for (GList *at = qp->sends.posted.tail; at; at = at->prev) {
        const FalseRequest *send = at->data;

        if (send->serial == serial) {
            g_queue_unlink(&qp->sends.posted, at);
            g_queue_push_head_link(&qp->sends.idle, at);
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

/* The oldest request with that wr_id, which is in no queue from then on. NULL: it was flushed. */
static FalseRequest *take_send_locked(FalseQp *qp, uint64_t wr_id)
{
    for (GList *at = qp->dying ? NULL : qp->sends.posted.head; at; at = at->next) {
        FalseRequest *send = at->data;

        if (send->wc.wr_id == wr_id) {
            g_queue_unlink(&qp->sends.posted, at);
            return send;
        }
    }
    return NULL;
}

bool false_qp_complete_send(struct ibv_qp *qp, uint64_t wr_id, enum ibv_wc_status status)
{
    FalseQp *ours = qp_of(qp);
    FalseDevice *device = device_of(qp->context);
    FalseRequest *send;

    g_mutex_lock(&device->lock);
    send = take_send_locked(ours, wr_id);
    if (send) {
        if (send->signaled || status != IBV_WC_SUCCESS) {
            complete_send_locked(ours, send, status);
        } else {
            g_queue_push_head_link(send->idle, &send->link);
        }
        if (status != IBV_WC_SUCCESS) {
            qp_fail_locked(ours);
        }
    }
    g_mutex_unlock(&device->lock);
    return send != NULL;
}

/* --- receives --- */

static int post_receive_locked(FalseQp *qp, const struct ibv_recv_wr *wr)
{
    FalseRequest *receive;

    if (wr->num_sge < 0 || (unsigned)wr->num_sge > qp->cap.max_recv_sge) {
        return EINVAL;
    }
    receive = take_idle_locked(&qp->receives, wr->wr_id);
    if (!receive) {
        return ENOMEM;
    }
    receive->wc.opcode = IBV_WC_RECV;
    if (qp->qp.state == IBV_QPS_ERR) {
        complete_receive_locked(qp, receive, IBV_WC_WR_FLUSH_ERR, 0, false);
        return 0;
    }
    receive->count = wr->num_sge;
    if (wr->num_sge) {
        memcpy(receive->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(receive->sges[0]));
    }
    g_queue_push_tail_link(&qp->receives.posted, &receive->link);
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
static enum ibv_wc_status scatter_locked(FalseQp *qp, const FalseRequest *receive,
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
    FalseRequest *receive = NULL;
    enum ibv_wc_status status;
    size_t length = 0;

    for (unsigned i = 0; i < count; i++) {
        length += pieces[i].iov_len;
    }
    g_mutex_lock(&device->lock);
    if (!ours->dying) {
        receive = take_posted_locked(&ours->receives);
    }
    if (receive) {
        status = length <= UINT32_MAX ? scatter_locked(ours, receive, pieces, count)
                                      : IBV_WC_LOC_LEN_ERR;
        complete_receive_locked(ours, receive, status, (uint32_t)length, solicited);
        if (status != IBV_WC_SUCCESS) {
            qp_fail_locked(ours);
        }
    }
    g_mutex_unlock(&device->lock);
    return receive != NULL;
}
