/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu-link.c -- one connection of a program that speaks the RDMA protocol as QEMU does */

#include "qemu-link.h"

#include <poll.h>
#include <string.h>

/* How often a wait looks whether it was cancelled. */
#define LOOK_MS 10

void link_init(QemuLink *link, FalseDevice *device)
{
    memset(link, 0, sizeof(*link));
    link->device = device;
}

static bool fails(QemuLink *link)
{
    link->failed = true;
    return false;
}

/* --- beginning --- */

static void allocate(QemuLink *link)
{
    struct ibv_context *verbs = link->id->verbs;
    struct ibv_qp_init_attr attr = {
        .cap = {.max_send_wr = LINK_SENDS, .max_recv_wr = 3, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };

    link->pd = false_alloc_pd(verbs);
    link->recv_channel = false_create_comp_channel(verbs);
    link->recv_cq = false_create_cq(verbs, LINK_SENDS * 3, NULL, link->recv_channel, 0);
    link->send_channel = false_create_comp_channel(verbs);
    link->send_cq = false_create_cq(verbs, LINK_SENDS * 3, NULL, link->send_channel, 0);
    attr.send_cq = link->send_cq;
    attr.recv_cq = link->recv_cq;
    g_assert_cmpint(false_create_qp(link->id, link->pd, &attr), ==, 0);
    link->qp = link->id->qp;
    for (unsigned i = 0; i < LINK_BUFFERS; i++) {
        link->buffers[i] = g_malloc0(V1_MESSAGE_MAX);
        link->mrs[i] = false_reg_mr(link->pd, link->buffers[i], V1_MESSAGE_MAX,
                                    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        g_assert_nonnull(link->mrs[i]);
    }
}

/* Reads and acknowledges the next event. */
static enum rdma_cm_event_type next_event(QemuLink *link, V1Capabilities *capabilities)
{
    enum rdma_cm_event_type type;
    struct rdma_cm_event *event;

    g_assert_cmpint(false_get_cm_event(link->channel, &event), ==, 0);
    type = event->event;
    if (capabilities && type == RDMA_CM_EVENT_ESTABLISHED) {
        g_assert_true(v1_capabilities_decode(event->param.conn.private_data,
                                             event->param.conn.private_data_len, capabilities,
                                             NULL));
    }
    g_assert_cmpint(false_ack_cm_event(event), ==, 0);
    return type;
}

void link_resolve(QemuLink *link, const char *host, const char *port)
{
    struct rdma_addrinfo *info;

    link->channel = false_create_event_channel(link->device);
    g_assert_cmpint(false_create_id(link->channel, &link->id, NULL, RDMA_PS_TCP), ==, 0);
    g_assert_cmpint(false_getaddrinfo(link->device, host, port, NULL, &info), ==, 0);
    g_assert_cmpint(false_resolve_addr(link->id, NULL, info->ai_dst_addr, 10000), ==, 0);
    false_freeaddrinfo(link->device, info);
    g_assert_cmpint(next_event(link, NULL), ==, RDMA_CM_EVENT_ADDR_RESOLVED);
    g_assert_cmpint(false_resolve_route(link->id, 10000), ==, 0);
    g_assert_cmpint(next_event(link, NULL), ==, RDMA_CM_EVENT_ROUTE_RESOLVED);
    allocate(link);
}

bool link_connect(QemuLink *link, bool *pin_all)
{
    V1Capabilities capabilities = {.version = V1_VERSION, .flags = *pin_all ? V1_FLAG_PIN_ALL : 0};
    uint8_t data[V1_CAPABILITIES_BYTES];
    struct rdma_conn_param param = {.initiator_depth = 2,
                                    .retry_count = 5,
                                    .private_data = data,
                                    .private_data_len = sizeof(data)};

    v1_capabilities_encode(&capabilities, data);
    if (!link_post_receive(link, LINK_READY) || false_connect(link->id, &param) != 0 ||
        next_event(link, &capabilities) != RDMA_CM_EVENT_ESTABLISHED) {
        return fails(link);
    }
    *pin_all = *pin_all && capabilities.flags & V1_FLAG_PIN_ALL;
    link->connected = link->ready_expected = true;
    return true;
}

void link_adopt(QemuLink *link, struct rdma_event_channel *channel, struct rdma_cm_id *id)
{
    link->channel = channel;
    link->shares_channel = true;
    link->id = id;
    allocate(link);
}

bool link_accept(QemuLink *link)
{
    const V1Capabilities capabilities = {.version = V1_VERSION};
    uint8_t data[V1_CAPABILITIES_BYTES];
    struct rdma_conn_param param = {
        .responder_resources = 2, .private_data = data, .private_data_len = sizeof(data)};

    v1_capabilities_encode(&capabilities, data);
    if (false_accept(link->id, &param) != 0 ||
        next_event(link, NULL) != RDMA_CM_EVENT_ESTABLISHED) {
        return fails(link);
    }
    link->connected = true;
    return link_post_receive(link, LINK_READY);
}

/* --- completions --- */

/* The next completion; LINK_NONE: there is none. */
static bool poll_one(QemuLink *link, struct ibv_cq *cq, uint64_t *wr_id, uint32_t *length)
{
    struct ibv_wc wc;

    *wr_id = LINK_NONE;
    if (ibv_poll_cq(cq, 1, &wc) == 0) {
        return true;
    }
    if (wc.status != IBV_WC_SUCCESS) {
        return fails(link);
    }
    *wr_id = wc.wr_id & LINK_TYPE_MASK;
    if (*wr_id >= LINK_RECV) {
        link->ready_expected = false;
    }
    link->writes -= *wr_id == LINK_WRITE;
    if (length) {
        *length = wc.byte_len;
    }
    return true;
}

/* Takes completions until that of the request, or until there is none. */
static bool poll_for(QemuLink *link, struct ibv_cq *cq, uint64_t wanted, uint32_t *length,
                     bool *found)
{
    uint64_t wr_id;

    do {
        if (!poll_one(link, cq, &wr_id, length)) {
            return false;
        }
        *found = wr_id == wanted;
    } while (!*found && wr_id != LINK_NONE);
    return true;
}

static bool take_event(QemuLink *link)
{
    enum rdma_cm_event_type type;
    struct rdma_cm_event *event;
    struct rdma_cm_id *id;

    g_assert_cmpint(false_get_cm_event(link->channel, &event), ==, 0);
    type = event->event;
    id = event->id;
    g_assert_cmpint(false_ack_cm_event(event), ==, 0);
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST && link->requested) {
        link->requested(link, id);
        return true;
    }
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
        link->stray = id;
    }
    return type == RDMA_CM_EVENT_DISCONNECTED ? fails(link) : true;
}

/* Waits for an event of the completion channel. */
static bool await_event(QemuLink *link, struct ibv_comp_channel *channel)
{
    while (!link->failed && !g_atomic_int_get(&link->cancelled)) {
        struct pollfd fds[2] = {{.fd = channel->fd, .events = POLLIN},
                                {.fd = link->channel->fd, .events = POLLIN}};

        poll(fds, 2, LOOK_MS);
        if (fds[0].revents) {
            return true;
        }
        if (fds[1].revents && !take_event(link)) {
            return false;
        }
    }
    return fails(link);
}

bool link_await(QemuLink *link, uint64_t wr_id, uint32_t *length)
{
    struct ibv_cq *cq = wr_id < LINK_RECV ? link->send_cq : link->recv_cq, *event_cq;
    unsigned events = 0;
    bool found, ok;
    void *context;

    g_assert_cmpint(ibv_req_notify_cq(cq, 0), ==, 0);
    ok = poll_for(link, cq, wr_id, length, &found);
    while (ok && !found) {
        ok = await_event(link, cq->channel);
        if (!ok) {
            break;
        }
        g_assert_cmpint(false_get_cq_event(cq->channel, &event_cq, &context), ==, 0);
        events++;
        g_assert_cmpint(ibv_req_notify_cq(cq, 0), ==, 0);
        ok = poll_for(link, cq, wr_id, length, &found);
    }
    if (events) {
        false_ack_cq_events(cq, events);
    }
    return ok || fails(link);
}

/* --- messages --- */

bool link_post_receive(QemuLink *link, unsigned buffer)
{
    struct ibv_sge sge = {.addr = (uintptr_t)link->buffers[buffer],
                          .length = V1_MESSAGE_MAX,
                          .lkey = link->mrs[buffer]->lkey};
    struct ibv_recv_wr wr = {.wr_id = LINK_RECV + buffer, .sg_list = &sge, .num_sge = 1}, *bad;

    return ibv_post_recv(link->qp, &wr, &bad) == 0 || fails(link);
}

static int post(QemuLink *link, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;

    wr->send_flags = IBV_SEND_SIGNALED;
    wr->num_sge = 1;
    return ibv_post_send(link->qp, wr, &bad);
}

bool link_post_message(QemuLink *link, V1Type type, uint32_t repeat, const void *body, size_t size)
{
    const V1Header header = {.type = type, .repeat = repeat};
    uint8_t *message = link->buffers[LINK_CONTROL];
    struct ibv_sge sge = {.addr = (uintptr_t)message,
                          .length = (uint32_t)(V1_HEADER_BYTES + size),
                          .lkey = link->mrs[LINK_CONTROL]->lkey};
    struct ibv_send_wr wr = {.wr_id = LINK_SEND, .opcode = IBV_WR_SEND, .sg_list = &sge};

    v1_header_encode(&header, size, message);
    if (size) {
        memcpy(message + V1_HEADER_BYTES, body, size);
    }
    return post(link, &wr) == 0 || fails(link);
}

bool link_send(QemuLink *link, V1Type type, uint32_t repeat, const void *body, size_t size)
{
    return link_post_message(link, type, repeat, body, size) && link_await(link, LINK_SEND, NULL);
}

/* Waits for the message of a buffer. type 0: any. */
static bool take(QemuLink *link, unsigned buffer, unsigned type)
{
    uint32_t length;

    if (!link_await(link, LINK_RECV + buffer, &length)) {
        return false;
    }
    g_assert_true(v1_header_decode(link->buffers[buffer], length, &link->header, NULL));
    link->body = link->buffers[buffer] + V1_HEADER_BYTES;
    link->size = length - V1_HEADER_BYTES;
    if (type) {
        g_assert_cmpuint(link->header.type, ==, type);
    }
    return true;
}

bool link_begin_exchange(QemuLink *link, V1Type type, const void *body, size_t size, bool answered)
{
    if (link->failed || (link->ready_expected && !take(link, LINK_READY, V1_READY))) {
        return false;
    }
    return (!answered || link_post_receive(link, LINK_DATA)) &&
           link_post_receive(link, LINK_READY) && link_post_message(link, type, 1, body, size);
}

bool link_exchange(QemuLink *link, V1Type type, const void *body, size_t size)
{
    if (!link_begin_exchange(link, type, body, size, false) || !link_await(link, LINK_SEND, NULL)) {
        return false;
    }
    link->ready_expected = true;
    return true;
}

bool link_ask(QemuLink *link, V1Type type, const void *body, size_t size, V1Type answer,
              bool (*meanwhile)(void *opaque), void *opaque)
{
    if (!link_begin_exchange(link, type, body, size, true) || !link_await(link, LINK_SEND, NULL) ||
        (meanwhile && !meanwhile(opaque)) || !take(link, LINK_DATA, answer)) {
        return false;
    }
    link->ready_expected = true;
    return true;
}

bool link_receive(QemuLink *link)
{
    return !link->failed && link_send(link, V1_READY, 1, NULL, 0) && take(link, LINK_READY, 0) &&
           link_post_receive(link, LINK_READY);
}

/* --- writes --- */

bool link_write(QemuLink *link, const void *memory, uint32_t length, uint32_t lkey, uint64_t remote,
                uint64_t number)
{
    struct ibv_sge sge = {.addr = (uintptr_t)memory, .length = length, .lkey = lkey};
    struct ibv_send_wr wr = {
        .wr_id = LINK_WRITE | number << 30, .opcode = IBV_WR_RDMA_WRITE, .sg_list = &sge};

    if (link->failed) {
        return false;
    }
    wr.wr.rdma.remote_addr = remote;
    wr.wr.rdma.rkey = 1;
    if (post(link, &wr) != 0) {
        return fails(link);
    }
    link->writes++;
    return true;
}

bool link_drain(QemuLink *link)
{
    while (link->writes) {
        if (!link_await(link, LINK_WRITE, NULL)) {
            return false;
        }
    }
    return !link->failed;
}

bool link_look(QemuLink *link)
{
    uint64_t wr_id;

    do {
        if (!poll_one(link, link->send_cq, &wr_id, NULL)) {
            return false;
        }
    } while (wr_id != LINK_NONE);
    return true;
}

/* --- end --- */

void link_end(QemuLink *link, LinkEnd how)
{
    if (link->connected && how == LINK_GIVES_UP) {
        (void)link_send(link, V1_ERROR, 1, NULL, 0);
    }
    if (link->connected && how != LINK_VANISHES) {
        g_assert_cmpint(false_disconnect(link->id), ==, 0);
    }
    for (unsigned i = 0; i < LINK_BUFFERS; i++) {
        if (link->mrs[i]) {
            g_assert_cmpint(false_dereg_mr(link->mrs[i]), ==, 0);
        }
    }
    if (link->qp) {
        false_destroy_qp(link->id);
        g_assert_cmpint(false_destroy_cq(link->recv_cq), ==, 0);
        g_assert_cmpint(false_destroy_cq(link->send_cq), ==, 0);
        g_assert_cmpint(false_destroy_comp_channel(link->recv_channel), ==, 0);
        g_assert_cmpint(false_destroy_comp_channel(link->send_channel), ==, 0);
        g_assert_cmpint(false_dealloc_pd(link->pd), ==, 0);
    }
    if (link->id) {
        g_assert_cmpint(false_destroy_id(link->id), ==, 0);
    }
    if (link->stray) {
        g_assert_cmpint(false_destroy_id(link->stray), ==, 0);
    }
    if (link->channel && !link->shares_channel) {
        false_destroy_event_channel(link->channel);
    }
    for (unsigned i = 0; i < LINK_BUFFERS; i++) {
        g_free(link->buffers[i]);
    }
    memset(link, 0, sizeof(*link));
}
