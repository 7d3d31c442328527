/* SPDX-License-Identifier: BSD-2-Clause */
/* local-link.c -- one connection of this process's QEMU with its false device */

#include "local-link.h"

#include <errno.h>
#include <string.h>

#include "local-report.h"

/* All links, for what QEMU does with a domain and not with a connection. */
static struct {
    GMutex lock;
    GSList *links;
} all;

LocalLink *local_link_new(const LocalLinkOps *ops, void *owner, struct rdma_cm_id *id)
{
    LocalLink *link = g_new0(LocalLink, 1);

    link->ops = ops;
    link->owner = owner;
    g_mutex_init(&link->lock);
    g_queue_init(&link->waiting);
    if (id) {
        link->id = id;
        link->qp = id->qp;
        false_id_set_opaque(id, link);
    }
    g_mutex_lock(&all.lock);
    all.links = g_slist_prepend(all.links, link);
    g_mutex_unlock(&all.lock);
    return link;
}

void local_link_free(LocalLink *link)
{
    g_mutex_lock(&all.lock);
    all.links = g_slist_remove(all.links, link);
    g_mutex_unlock(&all.lock);
    g_queue_clear_full(&link->waiting, (GDestroyNotify)g_bytes_unref);
    g_mutex_clear(&link->lock);
    g_free(link);
}

void local_link_accepted(LocalLink *link, struct rdma_cm_id *id)
{
    g_mutex_lock(&link->lock);
    link->id = id;
    link->qp = id->qp;
    g_mutex_unlock(&link->lock);
}

void local_link_set_qp(LocalLink *link, struct ibv_qp *qp)
{
    g_mutex_lock(&link->lock);
    link->qp = qp;
    g_mutex_unlock(&link->lock);
}

/* --- to QEMU --- */

static bool deliver_locked(LocalLink *link, GBytes *message)
{
    gsize size;
    const void *data = g_bytes_get_data(message, &size);
    const struct iovec piece = {.iov_base = (void *)data, .iov_len = size};

    return link->qp && false_qp_deliver(link->qp, &piece, 1, false);
}

static void deliver_waiting_locked(LocalLink *link)
{
    GBytes *message;

    while ((message = g_queue_peek_head(&link->waiting)) && deliver_locked(link, message)) {
        g_bytes_unref(g_queue_pop_head(&link->waiting));
    }
}

void local_link_receive_posted(LocalLink *link)
{
    g_mutex_lock(&link->lock);
    deliver_waiting_locked(link);
    g_mutex_unlock(&link->lock);
}

void local_link_say(LocalLink *link, V1Type type, uint32_t repeat, const void *body, size_t size)
{
    const V1Header header = {.type = type, .repeat = repeat};
    uint8_t *message = g_malloc(V1_HEADER_BYTES + size);

    v1_header_encode(&header, size, message);
    if (size) {
        memcpy(message + V1_HEADER_BYTES, body, size);
    }
    g_mutex_lock(&link->lock);
    g_queue_push_tail(&link->waiting, g_bytes_new_take(message, V1_HEADER_BYTES + size));
    deliver_waiting_locked(link);
    g_mutex_unlock(&link->lock);
}

void local_link_complete(LocalLink *link, uint64_t wr_id, bool ok)
{
    g_mutex_lock(&link->lock);
    if (link->qp) {
        false_qp_complete_send(link->qp, wr_id, ok ? IBV_WC_SUCCESS : IBV_WC_RETRY_EXC_ERR);
    }
    g_mutex_unlock(&link->lock);
}

/*
 * All of its receives and sends end with an error, and that is enough. A DISCONNECTED event next to
 * them would wake the coroutine that loads a migration a second time, for which QEMU aborts.
 */
void local_link_break(LocalLink *link)
{
    g_mutex_lock(&link->lock);
    if (link->qp) {
        false_qp_flush(link->qp);
    }
    g_mutex_unlock(&link->lock);
}

/* --- from QEMU --- */

static bool has_domain(LocalLink *link, const struct ibv_pd *pd)
{
    bool has;

    g_mutex_lock(&link->lock);
    has = link->qp && link->qp->pd == pd;
    g_mutex_unlock(&link->lock);
    return has;
}

void local_link_registered(const struct ibv_mr *mr)
{
    LocalLink *found = NULL;

    g_mutex_lock(&all.lock);
    for (GSList *at = all.links; at && !found; at = at->next) {
        found = has_domain(at->data, mr->pd) ? at->data : NULL;
    }
    g_mutex_unlock(&all.lock);
    /* The thread that registers is the link's, so the link stays. */
    if (found && found->ops->registered) {
        found->ops->registered(found, mr);
    }
}

static LocalAnswer take_message(LocalLink *link, const struct ibv_send_wr *wr,
                                const uint8_t *memory)
{
    const size_t size = wr->sg_list[0].length;
    LocalMessage message = {.wr_id = wr->wr_id};
    g_autoptr(GError) error = NULL;

    if (!v1_header_decode(memory, size, &message.header, &error)) {
        local_report("this process's QEMU: %s", error->message);
        return LOCAL_FAILED;
    }
    message.body = memory + V1_HEADER_BYTES;
    message.size = size - V1_HEADER_BYTES;
    return link->ops->said(link, &message);
}

int local_link_post(LocalLink *link, struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    LocalAnswer answer = LOCAL_FAILED;
    uint8_t *memory = wr->num_sge == 1 ? false_qp_local_memory(qp, &wr->sg_list[0]) : NULL;

    if (!memory) {
        return EINVAL;
    }
    if (wr->opcode == IBV_WR_SEND) {
        answer = take_message(link, wr, memory);
    } else if (wr->opcode == IBV_WR_RDMA_WRITE && link->ops->wrote) {
        answer = link->ops->wrote(link, memory, wr->wr.rdma.remote_addr, wr->sg_list[0].length)
                     ? LOCAL_DONE
                     : LOCAL_FAILED;
    } else {
        return EINVAL;
    }
    if (answer != LOCAL_LATER) {
        local_link_complete(link, wr->wr_id, answer == LOCAL_DONE);
    }
    return 0;
}
