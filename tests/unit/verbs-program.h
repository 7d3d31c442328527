/* SPDX-License-Identifier: BSD-2-Clause */
/* verbs-program.h -- one side of a program that uses a device as QEMU's migration does */

#ifndef VMF_TESTS_VERBS_PROGRAM_H
#define VMF_TESTS_VERBS_PROGRAM_H

#include "loopback-device.h"

#define PROGRAM_BUFFERS 3
#define PROGRAM_BUFFER_SIZE 4096
#define PROGRAM_SENDS 8

/* Ids of requests: those of receives are RECV plus the buffer's number. */
enum { PROGRAM_WRITE = 7, PROGRAM_SEND = 2000, PROGRAM_RECV = 4000 };

typedef struct Program {
    Loopback *loopback;
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listen_id, *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *recv_channel, *send_channel;
    struct ibv_cq *recv_cq, *send_cq;
    struct ibv_qp *qp;
    uint8_t buffers[PROGRAM_BUFFERS][PROGRAM_BUFFER_SIZE];
    struct ibv_mr *mrs[PROGRAM_BUFFERS];
    bool shares_channel; /* listen_id and channel are another Program's */
} Program;

Program *program_new(Loopback *loopback);

/* --- a source --- */

/* A channel, an id with a route to an address, and the objects for a connection. */
void program_resolve(Program *program, const char *host, const char *port);
/* Connects, and reads the event that follows. The caller acknowledges it. */
struct rdma_cm_event *program_connect(Program *program, const void *data, uint8_t size);

/* --- a destination --- */

void program_listen(Program *program, const char *host, const char *port);
/* Reads a request, answers with its own data, and reads the event that follows. */
void program_accept(Program *program);

/* --- both --- */

/* The domain, the queues, the queue pair and the buffers; program->id has a device. */
void program_allocate(Program *program);
/* The next event of the channel: asserts its type. */
struct rdma_cm_event *program_event(Program *program, enum rdma_cm_event_type type);
/* Reads and acknowledges it. */
void program_expect(Program *program, enum rdma_cm_event_type type);
bool program_readable(int fd);

void program_post_receive(Program *program, unsigned buffer);
/* Posts one request over some memory. Returns what ibv_post_send() says. */
int program_post(Program *program, enum ibv_wr_opcode opcode, uint64_t wr_id, const void *memory,
                 uint32_t length, uint32_t lkey);
/* Sends a text from the last buffer and waits until it is sent. */
void program_send(Program *program, const char *text);
/* Waits for the completion of a request as QEMU does. Returns its length. */
uint32_t program_await(Program *program, uint64_t wr_id);
/* The next completion, which must be there. */
struct ibv_wc program_poll(struct ibv_cq *cq);

/* Two sides that are connected. They have no receive posted. */
void program_pair(Loopback *loopback, Program **source, Program **destination);

/* Ends everything in QEMU's order, and frees it. */
void program_free(Program *program);

#endif
