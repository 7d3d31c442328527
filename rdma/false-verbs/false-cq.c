/* SPDX-License-Identifier: BSD-2-Clause */
/* false-cq.c -- completion queues and completion channels of a false RDMA device */

#include "false-objects.h"

#include <errno.h>
#include <unistd.h>

#include "event-fd.h"

/* --- the channel --- */

struct ibv_comp_channel *false_create_comp_channel(struct ibv_context *context)
{
    int fd = event_fd_new();
    FalseCompChannel *channel;

    if (fd < 0) {
        return NULL;
    }
    channel = g_new0(FalseCompChannel, 1);
    channel->channel.context = context;
    channel->channel.fd = fd;
    g_queue_init(&channel->events);
    return &channel->channel;
}

int false_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    FalseDevice *device = device_of(channel->context);
    int users;

    g_mutex_lock(&device->lock);
    users = channel->refcnt;
    g_mutex_unlock(&device->lock);
    if (users) {
        return EBUSY;
    }
    close(channel->fd);
    g_free(channel);
    return 0;
}

int false_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
    FalseCompChannel *ours = (FalseCompChannel *)channel;
    FalseDevice *device = device_of(channel->context);

    for (;;) {
        FalseCq *first;

        g_mutex_lock(&device->lock);
        first = g_queue_pop_head(&ours->events);
        if (first) {
            first->reported++;
            if (!ours->events.length) {
                event_fd_lower(channel->fd);
            }
        }
        g_mutex_unlock(&device->lock);
        if (first) {
            *cq = &first->cq;
            *cq_context = first->cq.cq_context;
            return 0;
        }
        if (!event_fd_wait(channel->fd)) {
            return -1;
        }
    }
}

void false_ack_cq_events(struct ibv_cq *cq, unsigned count)
{
    FalseDevice *device = device_of(cq->context);

    g_mutex_lock(&device->lock);
    cq_of(cq)->acknowledged += count;
    g_cond_broadcast(&device->acknowledged);
    g_mutex_unlock(&device->lock);
}

/* --- the queue --- */

struct ibv_cq *false_create_cq(struct ibv_context *context, int cqe, void *cq_context,
                               struct ibv_comp_channel *channel, int vector)
{
    FalseDevice *device = device_of(context);
    FalseCq *cq;

    if (cqe <= 0 || vector < 0 || vector >= context->num_comp_vectors) {
        errno = EINVAL;
        return NULL;
    }
    cq = g_new0(FalseCq, 1);
    cq->cq.context = context;
    cq->cq.channel = channel;
    cq->cq.cq_context = cq_context;
    cq->cq.cqe = cqe;
    cq->channel = (FalseCompChannel *)channel;
    g_queue_init(&cq->completions);
    if (channel) {
        g_mutex_lock(&device->lock);
        channel->refcnt++;
        g_mutex_unlock(&device->lock);
    }
    return &cq->cq;
}

static void drop_events_locked(FalseCq *cq)
{
    GQueue *events = &cq->channel->events;

    if (g_queue_remove_all(events, cq) && !events->length) {
        event_fd_lower(cq->channel->channel.fd);
    }
}

int false_destroy_cq(struct ibv_cq *cq)
{
    FalseCq *ours = cq_of(cq);
    FalseDevice *device = device_of(cq->context);

    g_mutex_lock(&device->lock);
    if (ours->users) {
        g_mutex_unlock(&device->lock);
        return EBUSY;
    }
    if (ours->channel) {
        drop_events_locked(ours);
    }
    while (ours->acknowledged != ours->reported) {
        g_cond_wait(&device->acknowledged, &device->lock);
    }
    if (ours->channel) {
        ours->channel->channel.refcnt--;
    }
    g_mutex_unlock(&device->lock);
    g_free(ours);
    return 0;
}

static void count_locked(FalseCq *cq)
{
    __atomic_store_n(&cq->waiting, cq->completions.length, __ATOMIC_RELEASE);
}

void cq_complete_locked(FalseCq *cq, FalseRequest *request, bool solicited)
{
    g_queue_push_tail_link(&cq->completions, &request->link);
    count_locked(cq);
    if (cq->armed == FALSE_ARMED_NOT || !cq->channel ||
        (cq->armed == FALSE_ARMED_SOLICITED && !solicited &&
         request->wc.status == IBV_WC_SUCCESS)) {
        return;
    }
    cq->armed = FALSE_ARMED_NOT;
    g_queue_push_tail(&cq->channel->events, cq);
    if (cq->channel->events.length == 1) {
        event_fd_raise(cq->channel->channel.fd);
    }
}

void cq_forget_locked(FalseCq *cq, const FalseQp *qp)
{
    GList *next;

    for (GList *at = cq->completions.head; at; at = next) {
        const FalseRequest *request = at->data;

        next = at->next;
        if (request->qp == qp) {
            g_queue_unlink(&cq->completions, at);
        }
    }
    count_locked(cq);
}

/*
 * Takes the oldest completion. Its queue pair cannot go, because the program still polls for it.
 *
 * QEMU looks twice for each page of RAM, mostly in vain, so that this look takes no lock. A
 * completion after it is not missed: who arms the queue before polling takes the lock there. Either
 * the completion was counted before, or it finds the queue armed.
 */
static const FalseQp *take(FalseCq *cq, struct ibv_wc *wc)
{
    FalseDevice *device = device_of(cq->cq.context);
    const FalseQp *qp = NULL;
    GList *first;

    if (!__atomic_load_n(&cq->waiting, __ATOMIC_ACQUIRE)) {
        return NULL;
    }
    g_mutex_lock(&device->lock);
    first = g_queue_pop_head_link(&cq->completions);
    if (first) {
        FalseRequest *request = first->data;

        count_locked(cq);
        *wc = request->wc;
        qp = request->qp;
        g_queue_push_head_link(request->idle, first);
    }
    g_mutex_unlock(&device->lock);
    return qp;
}

int false_poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
    FalseDevice *device = device_of(cq->context);
    int count = 0;

    while (count < most) {
        const FalseQp *qp = take(cq_of(cq), &wc[count]);

        if (!qp) {
            break;
        }
        if (device->ops.polled) {
            device->ops.polled(device->opaque, (struct ibv_qp *)&qp->qp, &wc[count]);
        }
        count++;
    }
    return count;
}

int false_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    FalseDevice *device = device_of(cq->context);
    const FalseArmed armed = solicited_only ? FALSE_ARMED_SOLICITED : FALSE_ARMED_ANY;

    g_mutex_lock(&device->lock);
    cq_of(cq)->armed = MAX(cq_of(cq)->armed, armed);
    g_mutex_unlock(&device->lock);
    return 0;
}
