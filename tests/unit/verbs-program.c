/* SPDX-License-Identifier: BSD-2-Clause */
/* verbs-program.c -- one side of a program that uses a device as QEMU's migration does */

#include "verbs-program.h"

#include <poll.h>
#include <string.h>

Program *program_new(Loopback *loopback)
{
    Program *program = g_new0(Program, 1);

    program->loopback = loopback;
    return program;
}

bool program_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

struct rdma_cm_event *program_event(Program *program, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event;

    g_assert_cmpint(false_get_cm_event(program->channel, &event), ==, 0);
    g_assert_cmpint(event->event, ==, type);
    return event;
}

void program_expect(Program *program, enum rdma_cm_event_type type)
{
    g_assert_cmpint(false_ack_cm_event(program_event(program, type)), ==, 0);
}

/* --- set-up --- */

void program_allocate(Program *program)
{
    struct ibv_context *verbs = program->id->verbs;
    struct ibv_qp_init_attr attr = {
        .cap = {.max_send_wr = PROGRAM_SENDS,
                .max_recv_wr = PROGRAM_BUFFERS,
                .max_send_sge = 1,
                .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };

    program->pd = false_alloc_pd(verbs);
    program->recv_channel = false_create_comp_channel(verbs);
    program->recv_cq = false_create_cq(verbs, PROGRAM_SENDS * 3, NULL, program->recv_channel, 0);
    program->send_channel = false_create_comp_channel(verbs);
    program->send_cq = false_create_cq(verbs, PROGRAM_SENDS * 3, NULL, program->send_channel, 0);
    g_assert_true(program->pd && program->recv_cq && program->send_cq);

    attr.send_cq = program->send_cq;
    attr.recv_cq = program->recv_cq;
    g_assert_cmpint(false_create_qp(program->id, program->pd, &attr), ==, 0);
    program->qp = program->id->qp;
    for (unsigned i = 0; i < PROGRAM_BUFFERS; i++) {
        program->mrs[i] = false_reg_mr(program->pd, program->buffers[i], PROGRAM_BUFFER_SIZE,
                                       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        g_assert_nonnull(program->mrs[i]);
    }
}

void program_resolve(Program *program, const char *host, const char *port)
{
    struct rdma_addrinfo *info;

    program->channel = false_create_event_channel(program->loopback->device);
    g_assert_cmpint(false_create_id(program->channel, &program->id, NULL, RDMA_PS_TCP), ==, 0);
    g_assert_cmpint(false_getaddrinfo(program->loopback->device, host, port, NULL, &info), ==, 0);
    g_assert_cmpint(false_resolve_addr(program->id, NULL, info->ai_dst_addr, 10000), ==, 0);
    false_freeaddrinfo(program->loopback->device, info);
    program_expect(program, RDMA_CM_EVENT_ADDR_RESOLVED);
    g_assert_cmpint(false_resolve_route(program->id, 10000), ==, 0);
    program_expect(program, RDMA_CM_EVENT_ROUTE_RESOLVED);
    program_allocate(program);
}

struct rdma_cm_event *program_connect(Program *program, const void *data, uint8_t size)
{
    struct rdma_conn_param param = {
        .initiator_depth = 2, .retry_count = 5, .private_data = data, .private_data_len = size};
    struct rdma_cm_event *event;

    program_post_receive(program, 0);
    g_assert_cmpint(false_connect(program->id, &param), ==, 0);
    g_assert_cmpint(false_get_cm_event(program->channel, &event), ==, 0);
    return event;
}

void program_listen(Program *program, const char *host, const char *port)
{
    FalseDevice *device = program->loopback->device;
    struct rdma_addrinfo *info;
    int reuse = 1;

    program->channel = false_create_event_channel(device);
    g_assert_cmpint(false_create_id(program->channel, &program->listen_id, NULL, RDMA_PS_TCP), ==,
                    0);
    g_assert_cmpint(false_getaddrinfo(device, host, port, NULL, &info), ==, 0);
    g_assert_cmpint(false_set_option(program->listen_id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR,
                                     &reuse, sizeof(reuse)),
                    ==, 0);
    g_assert_cmpint(false_bind_addr(program->listen_id, info->ai_dst_addr), ==, 0);
    false_freeaddrinfo(device, info);
    g_assert_cmpint(false_listen(program->listen_id, 5), ==, 0);
}

void program_accept(Program *program)
{
    struct rdma_cm_event *event = program_event(program, RDMA_CM_EVENT_CONNECT_REQUEST);
    char answer[] = "answer";
    struct rdma_conn_param param = {
        .responder_resources = 2, .private_data = answer, .private_data_len = sizeof(answer)};

    g_assert_true(event->listen_id == program->listen_id);
    g_assert_cmpstr(event->param.conn.private_data, ==, "question");
    program->id = event->id;
    g_assert_cmpint(false_ack_cm_event(event), ==, 0);
    program_allocate(program);
    g_assert_cmpint(false_accept(program->id, &param), ==, 0);
    program_expect(program, RDMA_CM_EVENT_ESTABLISHED);
    program_post_receive(program, 0);
}

/* --- requests --- */

void program_post_receive(Program *program, unsigned buffer)
{
    struct ibv_sge sge = {.addr = (uintptr_t)program->buffers[buffer],
                          .length = PROGRAM_BUFFER_SIZE,
                          .lkey = program->mrs[buffer]->lkey};
    struct ibv_recv_wr wr = {.wr_id = PROGRAM_RECV + buffer, .sg_list = &sge, .num_sge = 1}, *bad;

    g_assert_cmpint(ibv_post_recv(program->qp, &wr, &bad), ==, 0);
}

int program_post(Program *program, enum ibv_wr_opcode opcode, uint64_t wr_id, const void *memory,
                 uint32_t length, uint32_t lkey)
{
    struct ibv_sge sge = {.addr = (uintptr_t)memory, .length = length, .lkey = lkey};
    struct ibv_send_wr wr = {.wr_id = wr_id,
                             .opcode = opcode,
                             .send_flags = IBV_SEND_SIGNALED,
                             .sg_list = &sge,
                             .num_sge = 1};
    struct ibv_send_wr *bad = NULL;
    int error = ibv_post_send(program->qp, &wr, &bad);

    g_assert_true(bad == (error ? &wr : NULL));
    return error;
}

void program_send(Program *program, const char *text)
{
    const unsigned last = PROGRAM_BUFFERS - 1;

    g_strlcpy((char *)program->buffers[last], text, PROGRAM_BUFFER_SIZE);
    g_assert_cmpint(program_post(program, IBV_WR_SEND, PROGRAM_SEND, program->buffers[last],
                                 (uint32_t)strlen(text) + 1, program->mrs[last]->lkey),
                    ==, 0);
    program_await(program, PROGRAM_SEND);
}

struct ibv_wc program_poll(struct ibv_cq *cq)
{
    struct ibv_wc wc;

    g_assert_cmpint(ibv_poll_cq(cq, 1, &wc), ==, 1);
    return wc;
}

/* Takes completions until that of the request, or until there is none. */
static bool poll_for(struct ibv_cq *cq, uint64_t wr_id, uint32_t *length)
{
    struct ibv_wc wc;

    while (ibv_poll_cq(cq, 1, &wc) == 1) {
        g_assert_cmpint(wc.status, ==, IBV_WC_SUCCESS);
        if (wc.wr_id == wr_id) {
            *length = wc.byte_len;
            return true;
        }
    }
    return false;
}

uint32_t program_await(Program *program, uint64_t wr_id)
{
    struct ibv_cq *cq = wr_id < PROGRAM_RECV ? program->send_cq : program->recv_cq, *event_cq;
    struct ibv_comp_channel *channel = cq->channel;
    unsigned events = 0;
    uint32_t length;
    void *context;

    g_assert_cmpint(ibv_req_notify_cq(cq, 0), ==, 0);
    while (!poll_for(cq, wr_id, &length)) {
        struct pollfd fds[2] = {{.fd = channel->fd, .events = POLLIN},
                                {.fd = program->channel->fd, .events = POLLIN}};

        g_assert_cmpint(poll(fds, 2, 60000), ==, 1);
        g_assert_true(fds[0].revents);
        g_assert_cmpint(false_get_cq_event(channel, &event_cq, &context), ==, 0);
        g_assert_true(event_cq == cq);
        events++;
        g_assert_cmpint(ibv_req_notify_cq(cq, 0), ==, 0);
    }
    if (events) {
        false_ack_cq_events(cq, events);
    }
    return length;
}

static gpointer accept_one(gpointer program)
{
    program_accept(program);
    return NULL;
}

void program_pair(Loopback *loopback, Program **source, Program **destination)
{
    struct rdma_cm_event *event;
    GThread *thread;

    *source = program_new(loopback);
    *destination = program_new(loopback);
    program_listen(*destination, "0.0.0.0", "1");
    thread = g_thread_new("accept", accept_one, *destination);
    program_resolve(*source, "192.0.2.1", "1");
    event = program_connect(*source, "question", 9);
    g_thread_join(thread);
    g_assert_cmpint(event->event, ==, RDMA_CM_EVENT_ESTABLISHED);
    g_assert_cmpint(false_ack_cm_event(event), ==, 0);

    /* The receives of the set-up. */
    program_send(*source, "");
    program_send(*destination, "");
    program_await(*source, PROGRAM_RECV);
    program_await(*destination, PROGRAM_RECV);
}

/* --- end --- */

void program_free(Program *program)
{
    for (unsigned i = 0; i < PROGRAM_BUFFERS; i++) {
        if (program->mrs[i]) {
            g_assert_cmpint(false_dereg_mr(program->mrs[i]), ==, 0);
        }
    }
    if (program->qp) {
        false_destroy_qp(program->id);
        g_assert_cmpint(false_destroy_cq(program->recv_cq), ==, 0);
        g_assert_cmpint(false_destroy_cq(program->send_cq), ==, 0);
        g_assert_cmpint(false_destroy_comp_channel(program->recv_channel), ==, 0);
        g_assert_cmpint(false_destroy_comp_channel(program->send_channel), ==, 0);
        g_assert_cmpint(false_dealloc_pd(program->pd), ==, 0);
    }
    if (program->id) {
        g_assert_cmpint(false_destroy_id(program->id), ==, 0);
    }
    if (program->listen_id && !program->shares_channel) {
        g_assert_cmpint(false_destroy_id(program->listen_id), ==, 0);
    }
    if (program->channel && !program->shares_channel) {
        false_destroy_event_channel(program->channel);
    }
    g_free(program);
}
