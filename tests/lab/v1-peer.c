/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * v1-peer.c -- a stock QEMU of one's own, which can be told to err: v1-peer ROLE HOST PORT [HOW]
 *
 *   ROLE  source: migrates a tiny guest; destination: takes one, from one connection
 *   HOW   nothing: does everything right
 *         word M W   its M-th message has 0xffffffff as its W-th 32-bit word
 *         skip M     leaves its M-th message out
 *         twice M    sends it twice
 *         error M    sends ERROR instead, and hangs up
 *         leave M    hangs up instead
 *         slow M     no error: it sends it late
 *         version V  private data of that version
 *         far        no error: it writes far from what it asked for, within a chunk of 4 MiB
 *         apart      no error: it asks for and writes the first and the third MiB
 *         back       opens a return path, and tries to write by it what it may write by the first
 *
 * Messages are counted from 0. The destination's are READYs and answers.
 * Exit 0: it came to its end; 2: the peer said ERROR; 3: the peer hung up, or
 * refused; 1: something else failed.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>

#include <vmferry/qemu-stream.h>
#include "qemu-v1/v1-wire.h"

#define BUFFER_BYTES (512 * 1024)
#define RECEIVES 4
#define BLOCK_BYTES 0x400000 /* of each of the two RAM blocks */
#define HANG_SECONDS 20
#define LOAD_MS 1000
#define SLOW_US (2 * G_TIME_SPAN_SECOND)

enum { EXIT_ERROR = 2, EXIT_LEFT = 3 };

#define RAM_START "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
#define BLOCKS "\0\0\0\0\0\200\0\4\6pc.ram\0\0\0\0\0\100\0\0\3rom\0\0\0\0\0\100\0\0"
#define HOOK "\0\0\0\0\0\0\0\200"
#define EOS "\0\0\0\0\0\0\0\20"
#define FOOTER "\176\0\0\0\2"
static const char first_bytes[] = "QEVM\0\0\0\3\7\0\0\0\2pc" RAM_START BLOCKS HOOK;
static const char middle_bytes[] = EOS FOOTER "\3\0\0\0\2" HOOK;
static const char last_bytes[] = EOS FOOTER "\4 the state of devices" FOOTER "\0";

static const struct ibv_qp_init_attr queue_pair = {
    .cap = {.max_send_wr = 4, .max_recv_wr = RECEIVES, .max_send_sge = 1, .max_recv_sge = 1},
    .sq_sig_all = 0,
};
static uint8_t greeting[V1_CAPABILITIES_BYTES];
static const struct rdma_conn_param parameters = {.retry_count = 5,
                                                  .rnr_retry_count = 7,
                                                  .private_data = greeting,
                                                  .private_data_len = sizeof(greeting)};

static struct {
    struct rdma_addrinfo *address;
    struct rdma_cm_id *id;
    struct ibv_mr *mr; /* of the buffers: one to send, the others to receive */
    uint8_t *buffers;
    struct rdma_cm_id *back; /* the return path, or NULL */
    struct ibv_mr *back_mr;
    uint8_t back_page[VMF_QEMU_PAGE_BYTES];
    unsigned next_receive;
    const char *how;
    int message, word; /* what is to go wrong */
    int sent;
    bool ready; /* READY was said for a message that was then left out */
} peer = {.message = -1};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* It must be told what was under way: every mistake of the test's looks like this. */
static void left(const char *during, int status)
{
    fprintf(stderr, "the peer hung up, or refused: %s (%s)\n", during,
            status ? ibv_wc_status_str((enum ibv_wc_status)status) : g_strerror(errno));
    exit(EXIT_LEFT);
}

/* Of one work request; what the device says of it. */
static void await(int (*get)(struct rdma_cm_id *, struct ibv_wc *), const char *during,
                  struct ibv_wc *wc)
{
    if (get(peer.id, wc) < 1) {
        left(during, 0);
    }
    if (wc->status != IBV_WC_SUCCESS) {
        left(during, wc->status);
    }
}

/* --- messages --- */

static void post_receive(unsigned slot)
{
    if (rdma_post_recv(peer.id, NULL, peer.buffers + (slot + 1) * BUFFER_BYTES, BUFFER_BYTES,
                       peer.mr)) {
        fail("rdma_post_recv");
    }
}

static void send_bytes(size_t size)
{
    struct ibv_wc wc;

    if (rdma_post_send(peer.id, NULL, peer.buffers, size, peer.mr, IBV_SEND_SIGNALED)) {
        fail("rdma_post_send");
    }
    await(rdma_get_send_comp, "sending", &wc);
}

static bool goes_wrong(const char *how)
{
    return peer.how && g_str_equal(peer.how, how) && peer.sent == peer.message;
}

static void send_message(V1Type type, const void *body, size_t size)
{
    const V1Header header = {.type = type, .repeat = 1};
    unsigned times = goes_wrong("twice") ? 2 : goes_wrong("skip") ? 0 : 1;

    if (goes_wrong("leave")) {
        rdma_disconnect(peer.id);
        exit(EXIT_LEFT);
    }
    if (goes_wrong("error")) {
        const V1Header error = {.type = V1_ERROR, .repeat = 1};

        v1_header_encode(&error, 0, peer.buffers);
        send_bytes(V1_HEADER_BYTES);
        rdma_disconnect(peer.id);
        exit(0);
    }
    if (goes_wrong("slow")) {
        g_usleep(SLOW_US);
    }
    v1_header_encode(&header, size, peer.buffers);
    memcpy(peer.buffers + V1_HEADER_BYTES, body, size);
    if (goes_wrong("word")) {
        memset(peer.buffers + 4 * peer.word, 0xff, 4);
    }
    peer.sent++;
    while (times--) {
        send_bytes(V1_HEADER_BYTES + size);
    }
}

/* The next message, valid until the one after it; its body. */
static const uint8_t *receive(V1Header *header, size_t *size)
{
    uint8_t *message = peer.buffers + (peer.next_receive + 1) * BUFFER_BYTES;
    struct ibv_wc wc;

    await(rdma_get_recv_comp, "receiving", &wc);
    if (!v1_header_decode(message, wc.byte_len, header, NULL)) {
        fputs("a bad message came\n", stderr);
        exit(1);
    }
    if (header->type == V1_ERROR) {
        exit(EXIT_ERROR);
    }
    *size = wc.byte_len - V1_HEADER_BYTES;
    post_receive((peer.next_receive + RECEIVES - 1) % RECEIVES); /* the one before is done with */
    peer.next_receive = (peer.next_receive + 1) % RECEIVES;
    return message + V1_HEADER_BYTES;
}

static const uint8_t *expect(V1Type type)
{
    V1Header header;
    size_t size;
    const uint8_t *body = receive(&header, &size);

    if (header.type != type) {
        fprintf(stderr, "%s came instead of %s\n", v1_type_name(header.type), v1_type_name(type));
        exit(1);
    }
    return body;
}

/* --- source --- */

static void say(V1Type type, const void *body, size_t size)
{
    if (!peer.ready) {
        expect(V1_READY);
    }
    peer.ready = goes_wrong("skip");
    send_message(type, body, size);
}

/* A page of the first block that is not zero. */
static void write_page(const V1Registered *registered, uint64_t offset)
{
    struct ibv_wc wc;

    memset(peer.buffers, 0x5a, VMF_QEMU_PAGE_BYTES);
    if (rdma_post_write(peer.id, NULL, peer.buffers, VMF_QEMU_PAGE_BYTES, peer.mr,
                        IBV_SEND_SIGNALED, registered->host + offset, registered->rkey)) {
        fail("rdma_post_write");
    }
    await(rdma_get_send_comp, "writing", &wc);
}

static void ask(uint64_t offset, V1Registered *registered)
{
    uint8_t body[V1_REGISTER_BYTES];
    V1Register request = {.block = 0, .key = offset};

    v1_register_encode(&request, body);
    say(V1_REGISTER_REQUEST, body, V1_REGISTER_BYTES);
    v1_registered_decode(expect(V1_REGISTER_RESULT), 0, registered);
}

/* As stock QEMU does, before its stream begins. */
static void open_return_path(void)
{
    struct ibv_qp_init_attr attr = queue_pair;
    struct rdma_conn_param param = parameters;

    if (rdma_create_ep(&peer.back, peer.address, NULL, &attr)) {
        fail("rdma_create_ep");
    }
    peer.back_mr = rdma_reg_msgs(peer.back, peer.back_page, sizeof(peer.back_page));
    if (!peer.back_mr || rdma_connect(peer.back, &param)) {
        left("opening the return path", 0);
    }
}

/* The device must refuse that. */
static void write_by_return_path(const V1Registered *registered)
{
    struct ibv_wc wc;

    memset(peer.back_page, 0x5a, sizeof(peer.back_page));
    if (rdma_post_write(peer.back, NULL, peer.back_page, sizeof(peer.back_page), peer.back_mr,
                        IBV_SEND_SIGNALED, registered->host + 7 * VMF_QEMU_PAGE_BYTES,
                        registered->rkey) ||
        rdma_get_send_comp(peer.back, &wc) < 1) {
        fail("writing by the return path");
    }
    if (wc.status != IBV_WC_REM_ACCESS_ERR) {
        fprintf(stderr, "a write by the return path: %s\n", ibv_wc_status_str(wc.status));
        exit(1);
    }
}

static void write_memory(void)
{
    V1Registered registered;

    ask(0, &registered);
    write_page(&registered, VMF_QEMU_PAGE_BYTES);
    if (peer.how && g_str_equal(peer.how, "far")) {
        write_page(&registered, BLOCK_BYTES - VMF_QEMU_PAGE_BYTES);
    } else if (peer.how && g_str_equal(peer.how, "apart")) {
        ask(2 * V1_CHUNK_BYTES, &registered);
        write_page(&registered, 2 * V1_CHUNK_BYTES);
    } else if (peer.back) {
        write_by_return_path(&registered);
    }
}

static void be_source(void)
{
    uint8_t body[V1_ZERO_BYTES];
    V1Block block;
    V1Zero zero = {.block = 1, .length = BLOCK_BYTES};

    if (peer.how && g_str_equal(peer.how, "back")) {
        open_return_path();
    }
    say(V1_QEMU_FILE, first_bytes, sizeof(first_bytes) - 1);
    say(V1_RAM_BLOCKS_REQUEST, NULL, 0);
    v1_block_decode(expect(V1_RAM_BLOCKS_RESULT), 1, &block);
    write_memory();
    zero.offset = block.offset;
    v1_zero_encode(&zero, body);
    say(V1_COMPRESS, body, V1_ZERO_BYTES);
    say(V1_REGISTER_FINISHED, NULL, 0);
    say(V1_QEMU_FILE, middle_bytes, sizeof(middle_bytes) - 1);
    say(V1_REGISTER_FINISHED, NULL, 0);
    say(V1_QEMU_FILE, last_bytes, sizeof(last_bytes) - 1);
    rdma_disconnect(peer.id);
}

/* --- destination --- */

static void answer_blocks(const struct ibv_mr *ram)
{
    uint8_t body[2 * V1_BLOCK_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        const V1Block block = {.host = (uintptr_t)ram->addr + i * BLOCK_BYTES,
                               .offset = 0x100000ull * i,
                               .length = BLOCK_BYTES};

        v1_block_encode(&block, body + (size_t)i * V1_BLOCK_BYTES);
    }
    send_message(V1_RAM_BLOCKS_RESULT, body, sizeof(body));
}

static void answer_register(const struct ibv_mr *ram, const uint8_t *request_body)
{
    uint8_t body[V1_REGISTERED_BYTES];
    V1Register request;
    V1Registered result = {.rkey = ram->rkey};

    v1_register_decode(request_body, 0, &request);
    result.host = (uintptr_t)ram->addr + request.block * BLOCK_BYTES;
    v1_registered_encode(&result, body);
    send_message(V1_REGISTER_RESULT, body, sizeof(body));
}

/*
 * QEMU loads what came last before it hangs up. At once, the queue pair would go
 * down with the acknowledgement of the last message still unsent, now and then.
 */
static void await_disconnect(void)
{
    struct pollfd fd = {.fd = peer.id->channel->fd, .events = POLLIN};

    poll(&fd, 1, LOAD_MS);
}

/* Whether these bytes end the stream. How they are cut into messages is the source's choice. */
static bool ends_stream(const uint8_t *body, size_t size)
{
    static uint8_t tail[sizeof("devices" FOOTER)];
    const char *end = last_bytes + sizeof(last_bytes) - 1 - sizeof(tail);
    const size_t fresh = MIN(size, sizeof(tail));

    memmove(tail, tail + fresh, sizeof(tail) - fresh);
    memcpy(tail + sizeof(tail) - fresh, body + size - fresh, fresh);
    return memcmp(tail, end, sizeof(tail)) == 0;
}

static void be_destination(void)
{
    uint8_t *memory =
        mmap(NULL, 2 * BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct ibv_mr *ram = rdma_reg_write(peer.id, memory, 2 * BLOCK_BYTES);
    bool ended = false;

    if (!ram) {
        fail("rdma_reg_write");
    }
    while (!ended) {
        V1Header header;
        const uint8_t *body;
        size_t size;

        send_message(V1_READY, NULL, 0);
        body = receive(&header, &size);
        if (header.type == V1_RAM_BLOCKS_REQUEST) {
            answer_blocks(ram);
        } else if (header.type == V1_REGISTER_REQUEST) {
            answer_register(ram, body);
        } else if (header.type == V1_QEMU_FILE) {
            ended = ends_stream(body, size);
        }
    }
    await_disconnect();
    rdma_disconnect(peer.id);
}

/* --- connecting --- */

static void prepare(void)
{
    const size_t bytes = (RECEIVES + 1) * BUFFER_BYTES;

    peer.buffers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    peer.mr = rdma_reg_msgs(peer.id, peer.buffers, bytes);
    if (!peer.mr) {
        fail("rdma_reg_msgs");
    }
    for (unsigned i = 0; i + 1 < RECEIVES; i++) {
        post_receive(i);
    }
}

int main(int argc, char **argv)
{
    const bool source = argc >= 4 && g_str_equal(argv[1], "source");
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP,
                                  .ai_flags = source ? 0 : RAI_PASSIVE};
    struct ibv_qp_init_attr attr = queue_pair;
    struct rdma_conn_param param = parameters;
    V1Capabilities capabilities = {.version = V1_VERSION};

    if (argc < 4) {
        fail("usage: v1-peer source|destination HOST PORT [HOW]");
    }
    if (argc > 4) {
        peer.how = argv[4];
        peer.message = argc > 5 ? atoi(argv[5]) : 0;
        peer.word = argc > 6 ? atoi(argv[6]) : 0;
        capabilities.version =
            g_str_equal(peer.how, "version") ? (uint32_t)peer.message : V1_VERSION;
    }
    alarm(HANG_SECONDS);
    v1_capabilities_encode(&capabilities, greeting);
    if (rdma_getaddrinfo(argv[2], argv[3], &hints, &peer.address) ||
        rdma_create_ep(&peer.id, peer.address, NULL, &attr)) {
        fail("rdma_create_ep");
    }
    if (!source) {
        struct rdma_cm_id *listening = peer.id;

        puts("listening");
        fflush(stdout);
        if (rdma_listen(listening, 1) || rdma_get_request(listening, &peer.id)) {
            fail("listening");
        }
    }
    prepare();
    if (source ? rdma_connect(peer.id, &param) : rdma_accept(peer.id, &param)) {
        left("connecting", 0);
    }
    (source ? be_source : be_destination)();
    return 0;
}
