/* SPDX-License-Identifier: BSD-2-Clause */
/* fake-verbs.c -- an RDMA device that does what a test says, for tests of the rdma: transport */

#include "fake-verbs.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "connection/data-channel.h"
#include "source/renewal.h"

FakeVerbs fake_verbs;

static struct ibv_context context;
static struct rdma_cm_id cm_id;
static uint32_t last_key;

/* --- the device --- */

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    (void)qp;
    (void)bad;
    for (; wr; wr = wr->next) {
        FakeRequest request = {.opcode = wr->opcode,
                               .signaled = wr->send_flags & IBV_SEND_SIGNALED,
                               .remote = wr->wr.rdma.remote_addr,
                               .rkey = wr->wr.rdma.rkey};

        if (wr->num_sge) {
            request.local = (const uint8_t *)(uintptr_t)wr->sg_list->addr;
            request.length = wr->sg_list->length;
            request.lkey = wr->sg_list->lkey;
        }
        g_array_append_val(fake_verbs.requests, request);
    }
    return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    (void)qp;
    (void)bad;
    g_array_append_val(fake_verbs.receives, *wr->sg_list);
    g_array_append_val(fake_verbs.receive_ids, wr->wr_id);
    return 0;
}

/* A test may complete something while the thread that it tests sleeps. */
static GMutex completions_lock;

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
    int n = 0;

    (void)cq;
    if (fake_verbs.polled) {
        fake_verbs.polled();
    }
    g_mutex_lock(&completions_lock);
    while (n < most && !g_queue_is_empty(&fake_verbs.completions)) {
        g_autofree struct ibv_wc *next = g_queue_pop_head(&fake_verbs.completions);

        wc[n++] = *next;
    }
    g_mutex_unlock(&completions_lock);
    return n;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited)
{
    (void)cq;
    (void)solicited;
    g_atomic_int_inc(&fake_verbs.armed);
    if (fake_verbs.peer) {
        fake_verbs.peer(fake_verbs.opaque);
    }
    return 0;
}

static void complete_with(struct ibv_wc wc)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&completions_lock);

    (void)locker;
    g_queue_push_tail(&fake_verbs.completions, g_memdup2(&wc, sizeof(wc)));
}

void fake_verbs_complete(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (g_array_index(fake_verbs.requests, FakeRequest, i).signaled) {
            complete_with((struct ibv_wc){.status = IBV_WC_SUCCESS});
        }
    }
    if (count) {
        g_array_remove_range(fake_verbs.requests, 0, count);
    }
}

void fake_verbs_complete_all(void)
{
    fake_verbs_complete(fake_verbs.requests->len);
}

void fake_verbs_fail(enum ibv_wc_status status)
{
    complete_with((struct ibv_wc){.status = status});
}

static uint64_t take_receive(struct ibv_sge *place)
{
    const uint64_t id = g_array_index(fake_verbs.receive_ids, uint64_t, 0);

    *place = g_array_index(fake_verbs.receives, struct ibv_sge, 0);
    g_array_remove_index(fake_verbs.receives, 0);
    g_array_remove_index(fake_verbs.receive_ids, 0);
    return id;
}

void fake_verbs_deliver(const void *data, size_t size)
{
    struct ibv_sge place;
    struct ibv_wc wc = {.status = IBV_WC_SUCCESS, .byte_len = (uint32_t)size};

    g_assert(fake_verbs.receives->len);
    wc.wr_id = take_receive(&place);
    g_assert(size <= place.length);
    memcpy((void *)(uintptr_t)place.addr, data, size);
    complete_with(wc);
}

const uint8_t *fake_verbs_message(unsigned index, WireHeader *header, size_t *size)
{
    const FakeRequest *request = &g_array_index(fake_verbs.requests, FakeRequest, index);

    if (index >= fake_verbs.requests->len || request->opcode != IBV_WR_SEND ||
        !wire_header_decode(request->local, request->length, header, NULL)) {
        return NULL;
    }
    *size = request->length - WIRE_HEADER_BYTES;
    return request->local + WIRE_HEADER_BYTES;
}

unsigned fake_verbs_count(WireMessageKind kind)
{
    unsigned count = 0;
    WireHeader header;
    size_t size;

    for (unsigned i = 0; i < fake_verbs.requests->len; i++) {
        count += fake_verbs_message(i, &header, &size) && header.kind == kind;
    }
    return count;
}

void fake_verbs_init(void)
{
    memset(&fake_verbs, 0, sizeof(fake_verbs));
    fake_verbs.requests = g_array_new(FALSE, FALSE, sizeof(FakeRequest));
    fake_verbs.receives = g_array_new(FALSE, FALSE, sizeof(struct ibv_sge));
    fake_verbs.receive_ids = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    g_queue_init(&fake_verbs.completions);
    context.ops.post_send = post_send;
    context.ops.post_recv = post_recv;
    context.ops.poll_cq = poll_cq;
    context.ops.req_notify_cq = req_notify_cq;
}

void fake_verbs_clear(void)
{
    g_array_unref(fake_verbs.requests);
    g_array_unref(fake_verbs.receives);
    g_array_unref(fake_verbs.receive_ids);
    g_queue_clear_full(&fake_verbs.completions, g_free);
}

int fake_verbs_set_up(void **state)
{
    (void)state;
    fake_verbs_init();
    return 0;
}

int fake_verbs_tear_down(void **state)
{
    (void)state;
    fake_verbs_clear();
    return 0;
}

/* --- libibverbs --- */

#undef ibv_reg_mr

struct ibv_pd *ibv_alloc_pd(struct ibv_context *verbs)
{
    struct ibv_pd *pd = g_new0(struct ibv_pd, 1);

    pd->context = verbs;
    return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    g_free(pd);
    return 0;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
                                unsigned int access)
{
    struct ibv_mr *mr;

    (void)iova;
    /* Message buffers are registered for local writes alone. */
    if (fake_verbs.registration_error && access != IBV_ACCESS_LOCAL_WRITE) {
        errno = fake_verbs.registration_error;
        return NULL;
    }
    mr = g_new0(struct ibv_mr, 1);
    mr->pd = pd;
    mr->addr = addr;
    mr->length = length;
    mr->lkey = mr->rkey = ++last_key;
    fake_verbs.registered++;
    fake_verbs.registrations++;
    if (fake_verbs.registered_one && access != IBV_ACCESS_LOCAL_WRITE) {
        fake_verbs.registered_one();
    }
    return mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
    return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr, (unsigned)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    for (unsigned i = 0; i < fake_verbs.requests->len; i++) {
        if (g_array_index(fake_verbs.requests, FakeRequest, i).lkey == mr->lkey) {
            fake_verbs.freed_under_write++;
            break;
        }
    }
    fake_verbs.registered--;
    g_free(mr);
    return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *verbs)
{
    struct ibv_comp_channel *channel = g_new0(struct ibv_comp_channel, 1);

    channel->context = verbs;
    channel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    close(channel->fd);
    g_free(channel);
    return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *verbs, int entries, void *opaque,
                             struct ibv_comp_channel *channel, int vector)
{
    struct ibv_cq *cq = g_new0(struct ibv_cq, 1);

    (void)entries;
    (void)opaque;
    (void)channel;
    (void)vector;
    cq->context = verbs;
    return cq;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
    g_free(cq);
    return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **opaque)
{
    (void)channel;
    (void)cq;
    (void)opaque;
    return -1;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
    (void)cq;
    (void)count;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    struct ibv_sge place;

    (void)qp;
    if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_ERR) {
        while (fake_verbs.receives->len) {
            const uint64_t id = take_receive(&place);

            complete_with((struct ibv_wc){.status = IBV_WC_WR_FLUSH_ERR, .wr_id = id});
        }
        g_array_set_size(fake_verbs.requests, 0);
    }
    return 0;
}

/* --- librdmacm --- */

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    (void)attr;
    id->qp = g_new0(struct ibv_qp, 1);
    id->qp->context = id->verbs;
    id->qp->pd = pd;
    return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *id)
{
    g_clear_pointer(&id->qp, g_free);
}

/* test-rdma-nic has one of its own. */
__attribute__((weak)) int rdma_destroy_id(struct rdma_cm_id *id)
{
    (void)id;
    return 0;
}

int rdma_disconnect(struct rdma_cm_id *id)
{
    (void)id;
    return 0;
}

/* --- a connection --- */

RdmaChannel *fake_channel_new(VmfRole role, const VmfConnHost *host, uint8_t *memory,
                              uint64_t bytes, uint64_t chunk)
{
    RdmaConn *conn = g_new0(RdmaConn, 1);
    const VmfRamBlock **blocks = g_new0(const VmfRamBlock *, 1);

    conn->base.ram = vmf_ram_blocks_new();
    blocks[0] = vmf_ram_blocks_add(conn->base.ram, "ram", memory, bytes, 4096, NULL);
    g_assert(blocks[0]);
    conn->base.role = role;
    conn->base.host = host;
    conn->base.cancel_fd = -1;
    conn->base.timeout_ms = 2000;
    conn->base.heartbeat_ms = 500;
    conn->base.channels = 1;
    conn->base.max_inflight = 1 << 20;
    conn->base.blocks = blocks;
    conn->base.block_count = 1;
    conn->base.stripe = chunk;
    conn->base.counters = g_new0(VmfChannelCounters, 1);
    conn->revoke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    conn->zero_marks = zero_marks_new(1);
    cm_id.verbs = &context;
    conn->channels[0] = channel_new(conn, 0, &cm_id, NULL);
    g_assert(conn->channels[0]);
    g_assert(chunks_init(&conn->chunks, conn->base.blocks, 1, conn_data_pd(conn), chunk, 0, NULL));
    conn->channels[0]->registrar.dynamic = true;
    g_assert(discards_init(&conn->discards, &conn->base, NULL));
    return conn->channels[0];
}

void fake_channel_free(RdmaChannel *channel)
{
    RdmaConn *conn = channel->conn;

    channel_free(channel);
    discards_clear(&conn->discards);
    chunks_clear(&conn->chunks);
    renewal_clear(conn);
    ibv_dealloc_pd(conn->data_pd);
    zero_marks_free(conn->zero_marks, 1);
    vmf_ram_blocks_unref(conn->base.ram);
    g_free((void *)conn->base.blocks);
    g_free(conn->base.counters);
    close(conn->revoke_fd);
    g_free(conn);
}
