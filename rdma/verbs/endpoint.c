/* SPDX-License-Identifier: BSD-2-Clause */
/* endpoint.c -- a queue pair: completions, sleeping, posting and receiving */

#include "endpoint.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "nic.h"
#include "verbs-error.h"

/* Work request ids. Sends and writes carry none. Receives carry their slot. */
#define ID_RECEIVE 0x100000000ull

/* Send requests for messages besides RDMA writes: every slot, and as many more. */
#define MESSAGE_REQUESTS (2 * ENDPOINT_SEND_SLOTS)

static bool set_nonblocking(int fd, GError **error)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        verbs_set_error(error, VMF_ERROR_IO, errno,
                        "cannot make a completion channel non-blocking");
        return false;
    }
    return true;
}

static uint8_t *send_slot(Endpoint *ep, unsigned slot)
{
    return ep->memory + (size_t)slot * ep->limits.send_bytes;
}

static uint8_t *receive_slot(Endpoint *ep, unsigned slot)
{
    return ep->memory + ENDPOINT_SEND_SLOTS * ep->limits.send_bytes +
           (size_t)slot * ep->limits.receive_bytes;
}

static bool post_receive(Endpoint *ep, unsigned slot, GError **error)
{
    struct ibv_sge sge = {
        .addr = (uintptr_t)receive_slot(ep, slot),
        .length = (uint32_t)ep->limits.receive_bytes,
        .lkey = ep->mr->lkey,
    };
    struct ibv_recv_wr wr = {.wr_id = ID_RECEIVE | slot, .sg_list = &sge, .num_sge = 1};
    struct ibv_recv_wr *bad;
    int err = VERBS_INT("ibv_post_recv", ibv_post_recv(ep->qp, &wr, &bad));

    if (err) {
        verbs_set_error(error, VMF_ERROR_DEVICE, err, "%s: cannot post a receive buffer", ep->name);
        return false;
    }
    ep->receives_posted++;
    return true;
}

static bool make_queue_pair(Endpoint *ep, struct ibv_pd *pd, GError **error)
{
    struct ibv_context *verbs = ep->id->verbs;
    unsigned sends = ep->limits.writes + MESSAGE_REQUESTS;
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = sends,
                .max_recv_wr = ep->limits.receives,
                .max_send_sge = 1,
                .max_recv_sge = 1},
    };

    ep->completions = VERBS_POINTER("ibv_create_comp_channel", ibv_create_comp_channel(verbs));
    if (!ep->completions) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno, "%s: cannot create a completion channel",
                        ep->name);
        return false;
    }
    if (!set_nonblocking(ep->completions->fd, error)) {
        return false;
    }
    ep->cq = VERBS_POINTER("ibv_create_cq", ibv_create_cq(verbs, (int)(sends + ep->limits.receives),
                                                          NULL, ep->completions, 0));
    if (!ep->cq) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "%s: cannot create a completion queue of %u entries", ep->name,
                        sends + ep->limits.receives);
        return false;
    }
    attr.send_cq = attr.recv_cq = ep->cq;
    if (CM_INT("rdma_create_qp", rdma_create_qp(ep->id, pd, &attr)) < 0) {
        verbs_set_error(error, VMF_ERROR_DEVICE, errno,
                        "%s: cannot create a queue pair with %u send requests", ep->name, sends);
        return false;
    }
    ep->qp = ep->id->qp;
    ep->queue_size = sends;
    ep->batches = g_new0(EndpointBatch, sends);
    return true;
}

static bool make_buffers(Endpoint *ep, struct ibv_pd *pd, GError **error)
{
    ep->memory_bytes = ENDPOINT_SEND_SLOTS * ep->limits.send_bytes +
                       ep->limits.receives * ep->limits.receive_bytes;
    ep->memory_bytes = (ep->memory_bytes + 4095) & ~(size_t)4095;
    ep->memory = VERBS_POINTER("mmap", mmap(NULL, ep->memory_bytes, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    if (!ep->memory || ep->memory == MAP_FAILED) {
        ep->memory = NULL;
        verbs_set_error(error, VMF_ERROR_IO, errno, "%s: no memory for %zu bytes of buffers",
                        ep->name, ep->memory_bytes);
        return false;
    }
    ep->mr = VERBS_POINTER("ibv_reg_mr buffers",
                           ibv_reg_mr(pd, ep->memory, ep->memory_bytes, IBV_ACCESS_LOCAL_WRITE));
    if (!ep->mr) {
        verbs_set_error(error, errno == ENOMEM ? VMF_ERROR_MEMLOCK : VMF_ERROR_DEVICE, errno,
                        "%s: cannot register %zu KiB of message buffers; if the memory-lock limit "
                        "is small (ulimit -l), raise it (LimitMEMLOCK= in a systemd unit, "
                        "/etc/security/limits.conf) or use fewer channels",
                        ep->name, ep->memory_bytes / 1024);
        return false;
    }
    for (unsigned slot = 0; slot < ep->limits.receives; slot++) {
        if (!post_receive(ep, slot, error)) {
            return false;
        }
    }
    return true;
}

Endpoint *endpoint_new(struct rdma_cm_id *id, struct ibv_pd *pd, const EndpointLimits *limits,
                       const char *name, GError **error)
{
    Endpoint *ep = g_new0(Endpoint, 1);

    ep->id = id;
    ep->limits = *limits;
    g_assert(limits->receives <= ENDPOINT_RECEIVES);
    ep->limits.receives = limits->receives ? limits->receives : ENDPOINT_RECEIVES;
    g_strlcpy(ep->name, name, sizeof(ep->name));
    if (!make_queue_pair(ep, pd, error) || !make_buffers(ep, pd, error)) {
        endpoint_free(ep);
        return NULL;
    }
    return ep;
}

size_t endpoint_own_bytes(const Endpoint *ep)
{
    return sizeof(*ep) + ep->memory_bytes + ep->queue_size * sizeof(EndpointBatch);
}

/* --- completions --- */

static void batch_completed(Endpoint *ep)
{
    EndpointBatch *batch = &ep->batches[ep->batch_first];

    g_assert(ep->batch_count > 0);
    ep->batch_first = (ep->batch_first + 1) % ep->queue_size;
    ep->batch_count--;
    ep->queue_used -= batch->requests;
    ep->completed += batch->requests;
    ep->slots_used -= batch->slots;
    ep->inflight_bytes -= batch->bytes;
}

static bool failed_completion(Endpoint *ep, const struct ibv_wc *wc, GError **error)
{
    if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        ep->flushed = true;
        return true;
    }
    switch (wc->status) {
    case IBV_WC_RETRY_EXC_ERR:
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST,
                    "%s: the peer's RDMA device no longer answers (%s)", ep->name,
                    ibv_wc_status_str(wc->status));
        break;
    case IBV_WC_REM_ACCESS_ERR:
        /* A killed process loses its memory regions before its queue pairs. */
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER,
                    "%s: the peer's memory can no longer be written (%s): its process has ended "
                    "or failed",
                    ep->name, ibv_wc_status_str(wc->status));
        break;
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
        g_set_error(error, VMF_ERROR, VMF_ERROR_PEER,
                    "%s: the peer's RDMA device refused an operation (%s)", ep->name,
                    ibv_wc_status_str(wc->status));
        break;
    case IBV_WC_LOC_QP_OP_ERR: /* soft-RoCE says no more of an address that is gone */
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                    "%s: an RDMA operation failed: %s (vendor code %u): this side's address or "
                    "device was taken away, if only for a moment",
                    ep->name, ibv_wc_status_str(wc->status), wc->vendor_err);
        break;
    default:
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE,
                    "%s: an RDMA operation failed: %s (vendor code %u)", ep->name,
                    ibv_wc_status_str(wc->status), wc->vendor_err);
        break;
    }
    nic_explain(ep->id, error);
    return false;
}

static bool completion(Endpoint *ep, const struct ibv_wc *wc, GError **error)
{
    ep->receives_posted -= wc->wr_id & ID_RECEIVE ? 1 : 0;
    if (wc->status != IBV_WC_SUCCESS) {
        return failed_completion(ep, wc, error);
    }
    if (wc->wr_id & ID_RECEIVE) {
        unsigned slot = (unsigned)(wc->wr_id & 0xffffffff);
        unsigned at = (ep->ready_first + ep->ready_count) % ENDPOINT_RECEIVES;

        ep->ready[at] = slot;
        ep->ready_bytes[slot] = wc->byte_len;
        ep->ready_count++;
    } else {
        batch_completed(ep);
    }
    ep->progress++;
    return true;
}

bool endpoint_poll(Endpoint *ep, GError **error)
{
    struct ibv_wc wc[16];
    GError *first = NULL;
    int n;

    do {
        n = VMF_FAULT("ibv_poll_cq") ? -1 : ibv_poll_cq(ep->cq, G_N_ELEMENTS(wc), wc);
        if (n < 0 && !first) {
            g_set_error(&first, VMF_ERROR, VMF_ERROR_DEVICE, "%s: ibv_poll_cq failed", ep->name);
        }
        /* Completions after a failed one count as well. They say what the device is done with. */
        for (int i = 0; i < n; i++) {
            (void)completion(ep, &wc[i], first ? NULL : &first);
        }
    } while (n == (int)G_N_ELEMENTS(wc));
    if (first) {
        g_propagate_error(error, first);
        return false;
    }
    return true;
}

/* --- the end --- */

#define QUIESCE_US (100 * G_TIME_SPAN_MILLISECOND)

void endpoint_take_down(Endpoint *ep)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    if (ep && ep->qp && !ep->quiet_at) {
        ep->quiet_at = g_get_monotonic_time();
        if (ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE) == 0) {
            ep->quiet_at += QUIESCE_US;
        }
    }
}

static void quiesce(Endpoint *ep)
{
    endpoint_take_down(ep);
    /* Receives are handed back last. Errors no longer matter. */
    while (ep->receives_posted && g_get_monotonic_time() < ep->quiet_at) {
        endpoint_poll(ep, NULL);
        if (ep->receives_posted) {
            g_usleep(500);
        }
    }
}

void endpoint_free(Endpoint *ep)
{
    if (!ep) {
        return;
    }
    if (ep->qp) {
        quiesce(ep);
        rdma_destroy_qp(ep->id);
    }
    if (ep->events_unacked) {
        ibv_ack_cq_events(ep->cq, ep->events_unacked);
    }
    if (ep->cq) {
        ibv_destroy_cq(ep->cq);
    }
    if (ep->completions) {
        ibv_destroy_comp_channel(ep->completions);
    }
    if (ep->mr) {
        ibv_dereg_mr(ep->mr);
    }
    if (ep->memory) {
        munmap(ep->memory, ep->memory_bytes);
    }
    g_free(ep->batches);
    g_free(ep);
}

/* --- sleeping --- */

static bool spin(Endpoint *ep, unsigned spin_us, GError **error)
{
    gint64 end = g_get_monotonic_time() + spin_us;
    uint64_t before = ep->progress;

    do {
        if (!endpoint_poll(ep, error)) {
            return false;
        }
    } while (ep->progress == before && !ep->flushed && g_get_monotonic_time() < end);
    return true;
}

/* Takes the event of the completion channel, because one request to notify gives at most one. */
static void take_event(Endpoint *ep)
{
    struct ibv_cq *cq;
    void *context;

    /* Acknowledging takes a lock, so it is done for many events at once. */
    if (ibv_get_cq_event(ep->completions, &cq, &context) == 0 && ++ep->events_unacked == 1024) {
        ibv_ack_cq_events(ep->cq, ep->events_unacked);
        ep->events_unacked = 0;
    }
}

/*
 * How often a sleep looks for completions without an event. The kernel drops an event for which it
 * finds no memory. ib_uverbs_comp_handler() in drivers/infiniband/core/uverbs_main.c says nothing
 * then.
 */
#define LOOK_MS 1000

/* Arms the queue. Then polls, because completions from before the arming give no event. */
static bool arm(Endpoint *ep, GError **error)
{
    const int err = VERBS_INT("ibv_req_notify_cq", ibv_req_notify_cq(ep->cq, 0));

    if (err) {
        verbs_set_error(error, VMF_ERROR_DEVICE, err, "%s: cannot arm the completion queue",
                        ep->name);
        return false;
    }
    return endpoint_poll(ep, error);
}

static bool poll_wakers(Endpoint *ep, const EndpointWakers *wakers, int timeout_ms, unsigned *woke,
                        GError **error)
{
    struct pollfd fds[] = {
        /* in the order of the ENDPOINT_WOKE_* bits */
        {.fd = wakers->cancel, .events = POLLIN},      {.fd = wakers->wake, .events = POLLIN},
        {.fd = wakers->events, .events = POLLIN},      {.fd = wakers->listener, .events = POLLIN},
        {.fd = ep->completions->fd, .events = POLLIN},
    };
    const unsigned last = G_N_ELEMENTS(fds) - 1;
    const int n =
        poll(fds, G_N_ELEMENTS(fds), timeout_ms < 0 || timeout_ms > LOOK_MS ? LOOK_MS : timeout_ms);

    if (n < 0 && errno != EINTR) {
        verbs_set_error(error, VMF_ERROR_IO, errno, "%s: poll failed", ep->name);
        return false;
    }
    for (unsigned i = 0; n > 0 && i < last; i++) {
        *woke |= fds[i].revents ? 1u << i : 0;
    }
    if (n > 0 && fds[last].revents) {
        take_event(ep);
    }
    return true;
}

bool endpoint_sleep(Endpoint *ep, const EndpointWakers *wakers, int timeout_ms, unsigned spin_us,
                    unsigned *woke, GError **error)
{
    const uint64_t before = ep->progress;

    *woke = 0;
    if (spin_us) {
        if (!spin(ep, spin_us, error)) {
            return false;
        }
        if (ep->progress != before) {
            return true;
        }
    }
    if (!arm(ep, error)) {
        return false;
    }
    if (ep->progress != before || ep->flushed) {
        timeout_ms = 0;
    }
    return poll_wakers(ep, wakers, timeout_ms, woke, error);
}

/* --- messages --- */

static void request_posted(Endpoint *ep, uint32_t requests, uint32_t slots, uint64_t bytes,
                           bool signalled)
{
    ep->queue_used += requests;
    ep->posted += requests;
    ep->slots_used += slots;
    ep->inflight_bytes += bytes;
    ep->open.requests += requests;
    ep->open.slots += slots;
    ep->open.bytes += bytes;
    if (signalled) {
        ep->batches[(ep->batch_first + ep->batch_count) % ep->queue_size] = ep->open;
        ep->batch_count++;
        ep->open = (EndpointBatch){0};
    }
}

uint8_t *endpoint_slot(Endpoint *ep)
{
    if (ep->slots_used == ENDPOINT_SEND_SLOTS || ep->queue_used == ep->queue_size) {
        return NULL;
    }
    return send_slot(ep, ep->slot_next);
}

static bool post_send(Endpoint *ep, const void *data, size_t size, uint32_t lkey, unsigned slots,
                      GError **error)
{
    struct ibv_sge sge = {.addr = (uintptr_t)data, .length = (uint32_t)size, .lkey = lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = IBV_WR_SEND,
        .send_flags = IBV_SEND_SIGNALED,
    };
    struct ibv_send_wr *bad;
    int err = VERBS_INT("ibv_post_send message", ibv_post_send(ep->qp, &wr, &bad));

    if (err) {
        verbs_set_error(error, VMF_ERROR_DEVICE, err, "%s: cannot post a message", ep->name);
        return false;
    }
    request_posted(ep, 1, slots, 0, true);
    return true;
}

bool endpoint_send_slot(Endpoint *ep, size_t size, GError **error)
{
    g_assert(size <= ep->limits.send_bytes);
    if (!post_send(ep, send_slot(ep, ep->slot_next), size, ep->mr->lkey, 1, error)) {
        return false;
    }
    ep->slot_next = (ep->slot_next + 1) % ENDPOINT_SEND_SLOTS;
    return true;
}

bool endpoint_send_memory(Endpoint *ep, const void *data, size_t size, uint32_t lkey,
                          GError **error)
{
    return post_send(ep, data, size, lkey, 0, error);
}

const uint8_t *endpoint_take_slot(Endpoint *ep, unsigned *slot, size_t *size)
{
    if (!ep->ready_count) {
        return NULL;
    }
    *slot = ep->ready[ep->ready_first];
    *size = ep->ready_bytes[*slot];
    ep->ready_first = (ep->ready_first + 1) % ENDPOINT_RECEIVES;
    ep->ready_count--;
    return receive_slot(ep, *slot);
}

bool endpoint_give_back(Endpoint *ep, unsigned slot, GError **error)
{
    return ep->flushed || post_receive(ep, slot, error);
}

/* --- RDMA writes --- */

unsigned endpoint_write_room(const Endpoint *ep)
{
    unsigned free = ep->queue_size - ep->queue_used;

    return free > MESSAGE_REQUESTS ? free - MESSAGE_REQUESTS : 0;
}

bool endpoint_post_writes(Endpoint *ep, struct ibv_send_wr *first, struct ibv_send_wr *last,
                          unsigned count, uint64_t bytes, bool signal, GError **error)
{
    struct ibv_send_wr *bad;
    int err;

    last->next = NULL;
    if (signal) {
        last->send_flags |= IBV_SEND_SIGNALED;
    }
    err = VERBS_INT("ibv_post_send writes", ibv_post_send(ep->qp, first, &bad));
    if (err) {
        verbs_set_error(error, VMF_ERROR_DEVICE, err, "%s: cannot post %u RDMA writes", ep->name,
                        count);
        return false;
    }
    request_posted(ep, count, 0, bytes, signal);
    return true;
}
