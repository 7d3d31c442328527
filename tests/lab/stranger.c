/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stranger.c -- a client that a listener must survive: stranger HOST PORT HOW
 *
 *   garbage   a connection request with random private data
 *   silent    a control connection as vmferry's, which then says nothing
 *   half      the same, and gone before the connection is made
 *   channel   a channel of a session that does not exist
 *   noise     a control connection that sends random messages
 *
 * Exit 0: the connection was made; 3: it was refused; 1: something else failed.
 */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "wire.h"

#define SILENT_SECONDS 30
#define NOISE_MESSAGES 8
#define NOISE_BYTES 512

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void random_bytes(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)g_random_int();
    }
}

static enum rdma_cm_event_type next_event(struct rdma_event_channel *events)
{
    struct rdma_cm_event *event;
    enum rdma_cm_event_type type;

    if (rdma_get_cm_event(events, &event)) {
        fail("rdma_get_cm_event");
    }
    type = event->event;
    rdma_ack_cm_event(event);
    return type;
}

static void resolve(struct rdma_cm_id *id, struct rdma_event_channel *events, const char *host,
                    const char *port)
{
    struct addrinfo *list;

    if (getaddrinfo(host, port, NULL, &list)) {
        fail(host);
    }
    if (rdma_resolve_addr(id, NULL, list->ai_addr, 2000) ||
        next_event(events) != RDMA_CM_EVENT_ADDR_RESOLVED || rdma_resolve_route(id, 2000) ||
        next_event(events) != RDMA_CM_EVENT_ROUTE_RESOLVED) {
        fail("resolving");
    }
    freeaddrinfo(list);
}

static void make_queue_pair(struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = NOISE_MESSAGES,
                .max_recv_wr = 1,
                .max_send_sge = 1,
                .max_recv_sge = 1},
    };

    attr.send_cq = attr.recv_cq = ibv_create_cq(id->verbs, 64, NULL, NULL, 0);
    if (!attr.send_cq || rdma_create_qp(id, NULL, &attr)) {
        fail("making a queue pair");
    }
}

static void send_noise(struct rdma_cm_id *id)
{
    static uint8_t bytes[NOISE_MESSAGES * NOISE_BYTES];
    struct ibv_mr *mr = ibv_reg_mr(id->pd, bytes, sizeof(bytes), IBV_ACCESS_LOCAL_WRITE);

    if (!mr) {
        fail("ibv_reg_mr");
    }
    random_bytes(bytes, sizeof(bytes));
    for (unsigned i = 0; i < NOISE_MESSAGES; i++) {
        struct ibv_sge sge = {.addr = (uintptr_t)bytes + (size_t)i * NOISE_BYTES,
                              .length = i == 0 ? 1 : NOISE_BYTES,
                              .lkey = mr->lkey};
        struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad;

        if (ibv_post_send(id->qp, &wr, &bad)) {
            break;
        }
    }
    sleep(1);
}

int main(int argc, char **argv)
{
    struct rdma_event_channel *events = rdma_create_event_channel();
    struct rdma_cm_id *id;
    struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 7};
    uint8_t data[WIRE_HELLO_BYTES];
    WireHello hello = {.kind = WIRE_KIND_CONTROL};
    const char *how;

    if (argc != 4 || !events || rdma_create_id(events, &id, NULL, RDMA_PS_TCP)) {
        fail("usage: stranger HOST PORT garbage|silent|half|channel|noise");
    }
    how = argv[3];
    resolve(id, events, argv[1], argv[2]);
    make_queue_pair(id);
    if (g_str_equal(how, "channel")) {
        hello.kind = WIRE_KIND_CHANNEL;
    }
    random_bytes(hello.uuid, sizeof(hello.uuid));
    wire_hello_encode(&hello, data);
    if (g_str_equal(how, "garbage")) {
        random_bytes(data, sizeof(data));
    }
    param.private_data = data;
    param.private_data_len = sizeof(data);
    if (rdma_connect(id, &param)) {
        fail("rdma_connect");
    }
    if (g_str_equal(how, "half")) {
        _exit(0); /* the kernel forgets this side; the listener has only seen a request */
    }
    if (next_event(events) != RDMA_CM_EVENT_ESTABLISHED) {
        return 3;
    }
    if (g_str_equal(how, "noise")) {
        send_noise(id);
    } else {
        sleep(SILENT_SECONDS);
    }
    return 0;
}
