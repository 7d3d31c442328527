/* SPDX-License-Identifier: BSD-2-Clause */
/* test-false-queues.c -- tests of a false RDMA device's queue pairs, completions and memory */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "support/test-filter.h"
#include "verbs-program.h"

/* Two sides that are connected; no receive is posted. */
typedef struct Rig {
    Loopback *loopback;
    Program *source, *destination;
} Rig;

static int set_up(void **state)
{
    Rig *rig = g_new0(Rig, 1);

    rig->loopback = loopback_new();
    program_pair(rig->loopback, &rig->source, &rig->destination);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    Rig *rig = *state;

    program_free(rig->source);
    program_free(rig->destination);
    loopback_free(rig->loopback);
    g_free(rig);
    return 0;
}

/* Sends from the source's first buffer. */
static int post_first(Rig *rig, uint32_t length, uint32_t lkey)
{
    return program_post(rig->source, IBV_WR_SEND, PROGRAM_SEND, rig->source->buffers[0], length,
                        lkey);
}

static void assert_nothing(struct ibv_cq *cq)
{
    struct ibv_wc wc;

    assert_int_equal(ibv_poll_cq(cq, 1, &wc), 0);
}

static void assert_completion(struct ibv_cq *cq, uint64_t wr_id, enum ibv_wc_status status)
{
    struct ibv_wc wc = program_poll(cq);

    assert_int_equal(wc.wr_id, wr_id);
    assert_int_equal(wc.status, status);
}

/* --- messages --- */

static void a_message_waits_for_a_receive(void **state)
{
    Rig *rig = *state;
    Program *source = rig->source, *destination = rig->destination;
    struct ibv_wc wc;

    memcpy(source->buffers[0], "late", 5);
    assert_int_equal(post_first(rig, 5, source->mrs[0]->lkey), 0);
    assert_nothing(source->send_cq);
    program_post_receive(destination, 1);
    wc = program_poll(destination->recv_cq);
    assert_int_equal(wc.wr_id, PROGRAM_RECV + 1);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 5);
    assert_int_equal(wc.qp_num, destination->qp->qp_num);
    assert_string_equal(destination->buffers[1], "late");
    wc = program_poll(source->send_cq);
    assert_int_equal(wc.opcode, IBV_WC_SEND);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
}

static void receives_are_taken_in_their_order(void **state)
{
    Rig *rig = *state;

    for (unsigned i = 0; i < PROGRAM_BUFFERS; i++) {
        program_post_receive(rig->destination, i);
    }
    for (unsigned i = 0; i < PROGRAM_BUFFERS; i++) {
        program_send(rig->source, "x");
    }
    for (unsigned i = 0; i < PROGRAM_BUFFERS; i++) {
        assert_completion(rig->destination->recv_cq, PROGRAM_RECV + i, IBV_WC_SUCCESS);
    }
}

static void a_message_spreads_over_pieces(void **state)
{
    Rig *rig = *state;
    Program *destination = rig->destination;
    const uint32_t lkey = destination->mrs[0]->lkey;
    uint64_t at = (uintptr_t)destination->buffers[0];
    struct ibv_sge sges[] = {{at, 2, lkey}, {at + 8, 0, 0}, {at + 16, 1, lkey}, {at + 24, 8, lkey}};
    const struct iovec pieces[] = {{"abc", 3}, {NULL, 0}, {"defg", 5}};
    struct ibv_recv_wr wr = {.wr_id = 1, .sg_list = sges, .num_sge = 2}, *bad;
    struct ibv_qp_init_attr attr = {.cap = {.max_recv_wr = 1, .max_recv_sge = 4},
                                    .send_cq = destination->send_cq,
                                    .recv_cq = destination->recv_cq,
                                    .qp_type = IBV_QPT_RC};
    struct rdma_cm_id *id;
    struct ibv_wc wc;

    assert_int_equal(ibv_post_recv(destination->qp, &wr, &bad), EINVAL);
    assert_ptr_equal(bad, &wr);

    assert_int_equal(false_create_id(destination->channel, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(false_bind_addr(id, &destination->id->route.addr.src_addr), 0);
    assert_int_equal(false_create_qp(id, destination->pd, &attr), 0);
    wr.num_sge = 4;
    assert_int_equal(ibv_post_recv(id->qp, &wr, &bad), 0);
    assert_true(false_qp_deliver(id->qp, pieces, 3, false));
    wc = program_poll(destination->recv_cq);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.byte_len, 8);
    assert_memory_equal(destination->buffers[0], "ab", 2);
    assert_memory_equal(destination->buffers[0] + 16, "c", 1);
    assert_string_equal(destination->buffers[0] + 24, "defg");
    assert_false(false_qp_deliver(id->qp, pieces, 3, false));
    /* The queue pair goes with its id. */
    assert_int_equal(false_destroy_id(id), 0);
}

static void a_message_that_is_too_long_is_an_error(void **state)
{
    Rig *rig = *state;
    g_autofree uint8_t *memory = g_malloc0(PROGRAM_BUFFER_SIZE + 1);
    struct ibv_mr *mr = false_reg_mr(rig->source->pd, memory, PROGRAM_BUFFER_SIZE + 1, 0);

    program_post_receive(rig->destination, 0);
    program_post_receive(rig->destination, 1);
    assert_int_equal(
        program_post(rig->source, IBV_WR_SEND, 1, memory, PROGRAM_BUFFER_SIZE + 1, mr->lkey), 0);
    assert_completion(rig->destination->recv_cq, PROGRAM_RECV, IBV_WC_LOC_LEN_ERR);
    assert_completion(rig->destination->recv_cq, PROGRAM_RECV + 1, IBV_WC_WR_FLUSH_ERR);
    assert_int_equal(rig->destination->qp->state, IBV_QPS_ERR);
    /* What is posted in error completes at once. */
    program_post_receive(rig->destination, 2);
    assert_completion(rig->destination->recv_cq, PROGRAM_RECV + 2, IBV_WC_WR_FLUSH_ERR);
    assert_int_equal(false_dereg_mr(mr), 0);
}

/* Says something, and waits for an answer each time. */
static gpointer talk(gpointer data)
{
    Program *program = data;

    for (unsigned i = 0; i < 500; i++) {
        program_post_receive(program, i % 2);
        program_send(program, "word");
        program_await(program, PROGRAM_RECV + i % 2);
        assert_string_equal(program->buffers[i % 2], "word");
    }
    return NULL;
}

static void both_sides_talk_at_the_same_time(void **state)
{
    Rig *rig = *state;
    GThread *thread = g_thread_new("talk", talk, rig->destination);

    talk(rig->source);
    g_thread_join(thread);
}

/* --- full queues --- */

static void a_receive_queue_has_its_bound(void **state)
{
    Rig *rig = *state;
    struct ibv_recv_wr wr = {.wr_id = 1}, second = {.wr_id = 2, .next = &wr}, *bad;

    for (unsigned i = 0; i < PROGRAM_BUFFERS - 1; i++) {
        program_post_receive(rig->destination, i);
    }
    assert_int_equal(ibv_post_recv(rig->destination->qp, &second, &bad), ENOMEM);
    assert_ptr_equal(bad, &wr);
    program_send(rig->source, "");
    assert_int_equal(ibv_post_recv(rig->destination->qp, &wr, &bad), ENOMEM);
    assert_completion(rig->destination->recv_cq, PROGRAM_RECV, IBV_WC_SUCCESS);
    assert_int_equal(ibv_post_recv(rig->destination->qp, &wr, &bad), 0);
}

static int post_write(Rig *rig)
{
    Program *source = rig->source, *destination = rig->destination;
    struct ibv_sge sge = {(uintptr_t)source->buffers[0], 16, source->mrs[0]->lkey};
    struct ibv_send_wr wr = {.wr_id = PROGRAM_WRITE,
                             .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .wr.rdma = {(uintptr_t)destination->buffers[1],
                                         destination->mrs[1]->rkey}},
                       *bad;

    return ibv_post_send(source->qp, &wr, &bad);
}

static void a_full_backend_is_free_again_after_a_completion(void **state)
{
    Rig *rig = *state;

    rig->loopback->hold = true;
    memcpy(rig->source->buffers[0], "0123456789abcdef", 16);
    for (unsigned i = 0; i < rig->loopback->queue_max; i++) {
        assert_int_equal(post_write(rig), 0);
    }
    assert_memory_equal(rig->destination->buffers[1], "0123456789abcdef", 16);
    assert_int_equal(post_write(rig), ENOMEM);
    loopback_release(rig->loopback, 1);
    assert_int_equal(program_await(rig->source, PROGRAM_WRITE), 16);
    assert_int_equal(post_write(rig), 0);
    loopback_release(rig->loopback, rig->loopback->queue_max);
}

static void a_send_queue_is_full_until_it_is_polled(void **state)
{
    Rig *rig = *state;

    for (unsigned i = 0; i < PROGRAM_SENDS; i++) {
        assert_int_equal(post_write(rig), 0);
    }
    assert_int_equal(post_write(rig), ENOMEM);
    assert_completion(rig->source->send_cq, PROGRAM_WRITE, IBV_WC_SUCCESS);
    assert_int_equal(post_write(rig), 0);
}

static void a_request_without_a_signal_gives_no_completion(void **state)
{
    Rig *rig = *state;
    char text[] = "inline";
    struct ibv_sge sge = {(uintptr_t)text, sizeof(text), 0};
    struct ibv_send_wr wr = {.wr_id = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_INLINE,
                             .sg_list = &sge,
                             .num_sge = 1},
                       *bad;

    for (unsigned i = 0; i < 2 * PROGRAM_SENDS; i++) {
        program_post_receive(rig->destination, 0);
        assert_int_equal(ibv_post_send(rig->source->qp, &wr, &bad), 0);
        program_await(rig->destination, PROGRAM_RECV);
        assert_string_equal(rig->destination->buffers[0], "inline");
    }
    assert_nothing(rig->source->send_cq);
    wr.opcode = IBV_WR_BIND_MW;
    assert_int_equal(ibv_post_send(rig->source->qp, &wr, &bad), EINVAL);
    wr.num_sge = 2;
    assert_int_equal(ibv_post_send(rig->source->qp, &wr, &bad), EINVAL);
}

/* --- keys --- */

static void assert_bad_key(Rig *rig, uint32_t length, uint32_t lkey)
{
    assert_int_equal(post_first(rig, length, lkey), 0);
    assert_completion(rig->source->send_cq, PROGRAM_SEND, IBV_WC_LOC_PROT_ERR);
    assert_int_equal(rig->source->qp->state, IBV_QPS_ERR);
    assert_int_equal(post_first(rig, 1, rig->source->mrs[0]->lkey), 0);
    assert_completion(rig->source->send_cq, PROGRAM_SEND, IBV_WC_WR_FLUSH_ERR);
}

static void an_unknown_key_is_an_error(void **state)
{
    assert_bad_key(*state, 1, 0xdead);
}

static void a_key_of_another_domain_is_an_error(void **state)
{
    Rig *rig = *state;
    struct ibv_pd *pd = false_alloc_pd(rig->source->id->verbs);
    struct ibv_mr *mr = false_reg_mr(pd, rig->source->buffers[0], PROGRAM_BUFFER_SIZE, 0);

    assert_bad_key(rig, 1, mr->lkey);
    assert_int_equal(false_dealloc_pd(pd), EBUSY);
    assert_int_equal(false_dereg_mr(mr), 0);
    assert_int_equal(false_dealloc_pd(pd), 0);
}

static void a_range_beyond_its_registration_is_an_error(void **state)
{
    Rig *rig = *state;

    assert_bad_key(rig, PROGRAM_BUFFER_SIZE + 1, rig->source->mrs[0]->lkey);
}

static void a_receive_needs_memory_that_may_be_written(void **state)
{
    Rig *rig = *state;
    Program *destination = rig->destination;
    struct ibv_mr *writable = destination->mrs[0];

    destination->mrs[0] = false_reg_mr(destination->pd, destination->buffers[0],
                                       PROGRAM_BUFFER_SIZE, IBV_ACCESS_REMOTE_READ);
    program_post_receive(destination, 0);
    assert_int_equal(post_first(rig, 1, rig->source->mrs[0]->lkey), 0);
    assert_completion(destination->recv_cq, PROGRAM_RECV, IBV_WC_LOC_PROT_ERR);
    assert_int_equal(false_dereg_mr(writable), 0);
}

static void a_write_needs_a_key_of_the_peer(void **state)
{
    Rig *rig = *state;
    Program *destination = rig->destination;
    struct ibv_qp *qp = destination->qp;
    const uint32_t rkey = destination->mrs[1]->rkey;
    const uint64_t at = (uintptr_t)destination->buffers[1];

    assert_ptr_equal(false_qp_remote_memory(qp, rkey, at, 1, IBV_ACCESS_REMOTE_WRITE),
                     destination->buffers[1]);
    assert_null(false_qp_remote_memory(qp, rkey, at, 1, IBV_ACCESS_REMOTE_READ));
    assert_null(false_qp_remote_memory(qp, rkey, at - 1, 1, IBV_ACCESS_REMOTE_WRITE));
    assert_null(false_qp_remote_memory(qp, rkey, at, SIZE_MAX, IBV_ACCESS_REMOTE_WRITE));
    assert_int_equal(false_dereg_mr(destination->mrs[1]), 0);
    assert_null(false_qp_remote_memory(qp, rkey, at, 1, IBV_ACCESS_REMOTE_WRITE));
    /* The source still has the key. */
    destination->mrs[1] = false_reg_mr(destination->pd, destination->buffers[1], 1, 0);
    destination->mrs[1]->rkey = rkey;
    assert_int_equal(post_write(rig), 0);
    assert_completion(rig->source->send_cq, PROGRAM_WRITE, IBV_WC_REM_ACCESS_ERR);
}

static void a_registration_has_its_own_addresses(void **state)
{
    Rig *rig = *state;
    struct ibv_mr *mr = false_reg_mr_iova2(rig->source->pd, rig->source->buffers[0],
                                           PROGRAM_BUFFER_SIZE, 0x1000, 0);
    const struct ibv_sge sge = {0x1010, 4, mr->lkey}, before = {0xfff, 4, mr->lkey};

    assert_ptr_equal(false_qp_local_memory(rig->source->qp, &sge), rig->source->buffers[0] + 16);
    assert_null(false_qp_local_memory(rig->source->qp, &before));
    assert_int_equal(false_dereg_mr(mr), 0);
}

static void registrations_that_cannot_be_fail(void **state)
{
    Rig *rig = *state;
    struct ibv_pd *pd = rig->source->pd;
    uint8_t *memory = rig->source->buffers[0];

    assert_null(false_reg_mr(pd, memory, 1, IBV_ACCESS_REMOTE_WRITE));
    assert_int_equal(errno, EINVAL);
    assert_null(false_reg_mr(pd, memory, 0, 0));
    assert_int_equal(errno, EINVAL);
    assert_null(false_reg_mr(pd, memory, SIZE_MAX, 0));
    assert_int_equal(errno, EINVAL);
    assert_null(false_reg_mr(pd, memory, 1, IBV_ACCESS_ON_DEMAND));
    assert_int_equal(errno, EOPNOTSUPP);
    rig->loopback->mr_error = EPERM;
    assert_null(false_reg_mr(pd, memory, 1, 0));
    assert_int_equal(errno, EPERM);
}

/* --- notifications --- */

static void a_notification_comes_once(void **state)
{
    Rig *rig = *state;
    struct ibv_cq *cq = rig->source->send_cq, *event_cq;
    struct ibv_comp_channel *channel = cq->channel;
    void *context;

    assert_int_equal(fcntl(channel->fd, F_SETFL, O_NONBLOCK), 0);
    /* The set-up may have left the queue armed. */
    assert_int_equal(post_write(rig), 0);
    if (program_readable(channel->fd)) {
        assert_int_equal(false_get_cq_event(channel, &event_cq, &context), 0);
        false_ack_cq_events(cq, 1);
    }
    assert_int_equal(post_write(rig), 0);
    assert_false(program_readable(channel->fd));
    assert_int_equal(false_get_cq_event(channel, &event_cq, &context), -1);
    assert_int_equal(errno, EAGAIN);

    /* What is there already does not count. */
    assert_int_equal(ibv_req_notify_cq(cq, 0), 0);
    assert_false(program_readable(channel->fd));
    assert_int_equal(post_write(rig), 0);
    assert_int_equal(post_write(rig), 0);
    assert_true(program_readable(channel->fd));
    assert_int_equal(false_get_cq_event(channel, &event_cq, &context), 0);
    assert_ptr_equal(event_cq, cq);
    assert_false(program_readable(channel->fd));
    false_ack_cq_events(cq, 1);
}

static void a_solicited_notification_skips_other_messages(void **state)
{
    Rig *rig = *state;
    Program *destination = rig->destination;
    struct ibv_cq *cq =
        false_create_cq(destination->id->verbs, 4, state, destination->recv_channel, 0);
    struct ibv_qp_init_attr attr = {
        .cap = {.max_recv_wr = 4}, .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC};
    struct ibv_recv_wr wr = {.wr_id = 1}, *bad;
    struct rdma_cm_id *id;
    struct ibv_cq *event_cq;
    void *context;

    assert_int_equal(false_create_id(destination->channel, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(false_bind_addr(id, &destination->id->route.addr.src_addr), 0);
    assert_int_equal(false_create_qp(id, destination->pd, &attr), 0);
    assert_int_equal(ibv_req_notify_cq(cq, 1), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ibv_post_recv(id->qp, &wr, &bad), 0);
    }
    assert_true(false_qp_deliver(id->qp, NULL, 0, false));
    assert_false(program_readable(destination->recv_channel->fd));
    assert_true(false_qp_deliver(id->qp, NULL, 0, true));
    assert_true(program_readable(destination->recv_channel->fd));
    assert_int_equal(false_get_cq_event(destination->recv_channel, &event_cq, &context), 0);
    assert_ptr_equal(event_cq, cq);
    assert_ptr_equal(context, state);
    false_ack_cq_events(cq, 1);
    /* An error always counts. */
    assert_int_equal(ibv_req_notify_cq(cq, 1), 0);
    false_qp_flush(id->qp);
    assert_true(program_readable(destination->recv_channel->fd));
    assert_int_equal(false_destroy_cq(cq), EBUSY);
    assert_int_equal(false_destroy_id(id), 0);
    assert_int_equal(false_destroy_cq(cq), 0);
    assert_false(program_readable(destination->recv_channel->fd));
}

static gpointer send_later(gpointer data)
{
    g_usleep(20000);
    program_send(data, "wake");
    return NULL;
}

static void a_completion_wakes_whoever_waits(void **state)
{
    Rig *rig = *state;
    struct ibv_cq *cq = rig->destination->recv_cq, *event_cq;
    GThread *thread;
    void *context;

    program_post_receive(rig->destination, 0);
    assert_int_equal(ibv_req_notify_cq(cq, 0), 0);
    thread = g_thread_new("send", send_later, rig->source);
    assert_int_equal(false_get_cq_event(cq->channel, &event_cq, &context), 0);
    false_ack_cq_events(cq, 1);
    assert_completion(cq, PROGRAM_RECV, IBV_WC_SUCCESS);
    g_thread_join(thread);
}

static gint acknowledged;

static gpointer acknowledge_later(gpointer cq)
{
    g_usleep(20000);
    g_atomic_int_set(&acknowledged, 1);
    false_ack_cq_events(cq, 1);
    return NULL;
}

static void the_end_of_a_queue_waits_for_acknowledgements(void **state)
{
    Rig *rig = *state;
    Program *source = rig->source;
    struct ibv_cq *event_cq;
    GThread *thread;
    void *context;

    assert_int_equal(ibv_req_notify_cq(source->send_cq, 0), 0);
    assert_int_equal(post_write(rig), 0);
    assert_int_equal(false_get_cq_event(source->send_channel, &event_cq, &context), 0);
    assert_int_equal(false_destroy_comp_channel(source->send_channel), EBUSY);
    g_atomic_int_set(&acknowledged, 0);
    thread = g_thread_new("acknowledge", acknowledge_later, source->send_cq);
    program_free(source);
    assert_int_equal(g_atomic_int_get(&acknowledged), 1);
    g_thread_join(thread);
    rig->source = program_new(rig->loopback);
}

/* --- ends --- */

static void a_disconnection_flushes_the_queue_pair(void **state)
{
    Rig *rig = *state;
    Program *source = rig->source;

    rig->loopback->hold = true;
    program_post_receive(source, 0);
    assert_int_equal(post_write(rig), 0);
    assert_int_equal(false_disconnect(source->id), 0);
    assert_completion(source->send_cq, PROGRAM_WRITE, IBV_WC_WR_FLUSH_ERR);
    assert_completion(source->recv_cq, PROGRAM_RECV, IBV_WC_WR_FLUSH_ERR);
    /* The backend may not know yet. */
    assert_false(false_qp_complete_send(source->qp, PROGRAM_WRITE, IBV_WC_SUCCESS));
    program_expect(source, RDMA_CM_EVENT_DISCONNECTED);
    program_expect(rig->destination, RDMA_CM_EVENT_DISCONNECTED);
    assert_int_equal(rig->destination->qp->state, IBV_QPS_RTS);
    assert_int_equal(false_disconnect(source->id), 0);
}

static void the_end_of_a_queue_pair_takes_its_completions(void **state)
{
    Rig *rig = *state;
    Program *source = rig->source;

    assert_int_equal(post_write(rig), 0);
    program_post_receive(source, 0);
    program_post_receive(source, 1);
    program_send(rig->destination, "");
    false_destroy_qp(source->id);
    assert_null(source->id->qp);
    assert_nothing(source->send_cq);
    assert_nothing(source->recv_cq);
    false_destroy_qp(source->id);
}

static void queue_pairs_that_cannot_be_fail(void **state)
{
    Rig *rig = *state;
    Program *source = rig->source;
    struct ibv_qp_init_attr attr = {
        .send_cq = source->send_cq, .recv_cq = source->recv_cq, .qp_type = IBV_QPT_RC};

    assert_int_equal(false_create_qp(source->id, source->pd, &attr), -1);
    assert_int_equal(errno, EINVAL);
    false_destroy_qp(source->id);
    assert_int_equal(false_create_qp(source->id, NULL, &attr), -1);
    attr.qp_type = IBV_QPT_UD;
    assert_int_equal(false_create_qp(source->id, source->pd, &attr), -1);
    assert_int_equal(errno, EINVAL);
    attr.qp_type = IBV_QPT_RC;
    rig->loopback->qp_error = ENOSPC;
    assert_int_equal(false_create_qp(source->id, source->pd, &attr), -1);
    assert_int_equal(errno, ENOSPC);
    assert_null(source->id->qp);
    rig->loopback->qp_error = 0;
    assert_int_equal(false_create_qp(source->id, source->pd, &attr), 0);
    assert_null(false_create_cq(source->id->verbs, 0, NULL, NULL, 0));
    assert_null(false_create_cq(source->id->verbs, 1, NULL, NULL, 1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_waits_for_a_receive),
        TEST(receives_are_taken_in_their_order),
        TEST(a_message_spreads_over_pieces),
        TEST(a_message_that_is_too_long_is_an_error),
        TEST(both_sides_talk_at_the_same_time),
        TEST(a_receive_queue_has_its_bound),
        TEST(a_full_backend_is_free_again_after_a_completion),
        TEST(a_send_queue_is_full_until_it_is_polled),
        TEST(a_request_without_a_signal_gives_no_completion),
        TEST(an_unknown_key_is_an_error),
        TEST(a_key_of_another_domain_is_an_error),
        TEST(a_range_beyond_its_registration_is_an_error),
        TEST(a_receive_needs_memory_that_may_be_written),
        TEST(a_write_needs_a_key_of_the_peer),
        TEST(a_registration_has_its_own_addresses),
        TEST(registrations_that_cannot_be_fail),
        TEST(a_notification_comes_once),
        TEST(a_solicited_notification_skips_other_messages),
        TEST(a_completion_wakes_whoever_waits),
        TEST(the_end_of_a_queue_waits_for_acknowledgements),
        TEST(a_disconnection_flushes_the_queue_pair),
        TEST(the_end_of_a_queue_pair_takes_its_completions),
        TEST(queue_pairs_that_cannot_be_fail),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
