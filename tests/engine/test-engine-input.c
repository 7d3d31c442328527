/* SPDX-License-Identifier: BSD-2-Clause */
/* test-engine-input.c -- a program that speaks QEMU's protocol wrongly to its own engine */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "engine-rig.h"
#include "support/test-filter.h"

/* What a source does wrong, at a step: true if the engine let it. */
typedef struct Wrong {
    SourceStep step;
    bool (*act)(QemuSource *source);
} Wrong;

static Wrong wrong;
static bool let;
static bool alone; /* Rig.alone */

static bool act_wrongly(void *opaque, SourceStep step)
{
    Rig *rig = opaque;

    if (step != wrong.step) {
        return true;
    }
    let = wrong.act(&rig->source);
    return false;
}

/* The source gets an error, the destination no VM, and nothing crashes. */
static void expect_error(SourceStep step, bool (*act)(QemuSource *source))
{
    Rig rig;

    rig_init(&rig);
    wrong = (Wrong){.step = step, .act = act};
    let = true;
    rig.alone = alone;
    rig.source.at = act_wrongly;
    rig.source.end = LINK_GIVES_UP;
    rig_run(&rig);
    assert_false(let);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

/* --- what the other side hears --- */

static GString *reports;
static GMutex reports_lock;

static void keep_report(const char *text)
{
    g_mutex_lock(&reports_lock);
    g_string_append(reports, text);
    g_mutex_unlock(&reports_lock);
}

static bool say_no_stream(QemuSource *s)
{
    return link_exchange(&s->link, V1_QEMU_FILE, "no stream", 9);
}

/* A side tells its user in a thread of its own, when it has heard. */
static void await_report(const char *text)
{
    const gint64 end = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;
    bool there = false;

    while (!there && g_get_monotonic_time() < end) {
        g_mutex_lock(&reports_lock);
        there = strstr(reports->str, text) != NULL;
        g_mutex_unlock(&reports_lock);
        if (!there) {
            g_usleep(1000);
        }
    }
    if (!there) {
        fail_msg("nobody said \"%s\", but: %s", text, reports->str);
    }
}

static GPrintFunc begin_reports(void)
{
    reports = g_string_new(NULL);
    return g_set_printerr_handler(keep_report);
}

static void end_reports(GPrintFunc before)
{
    g_set_printerr_handler(before);
    g_string_free(reports, TRUE);
}

static void errors__are_told_on_both_sides(void **state)
{
    GPrintFunc before = begin_reports();

    (void)state;
    alone = true;
    expect_error(SOURCE_NAMED, say_no_stream);
    alone = false;
    await_report("vmferry: the migration failed: QEMU's stream");
    await_report("vmferry: the incoming migration failed: the peer");
    await_report("reported: QEMU's stream");
    end_reports(before);
}

/* QEMU's stream, of which the second command says that postcopy may come. */
static bool say_postcopy(QemuSource *s)
{
    static const uint8_t stream[] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3, 8, 0, 2, 0,
                                     4,   0,   0,   0,   3, 8, 0, 3, 0, 2, 0, 0};

    return link_exchange(&s->link, V1_QEMU_FILE, stream, sizeof(stream));
}

static void postcopy__is_refused_at_its_beginning(void **state)
{
    GPrintFunc before = begin_reports();

    (void)state;
    expect_error(SOURCE_READY, say_postcopy);
    await_report("vmferry: the migration failed: postcopy-ram is on");
    end_reports(before);
}

/* --- registering --- */

static bool ask_to_register(QemuSource *s, uint32_t block)
{
    const V1Register request = {.block = block};
    uint8_t body[V1_REGISTER_BYTES];

    v1_register_encode(&request, body);
    return link_ask(&s->link, V1_REGISTER_REQUEST, body, sizeof(body), V1_REGISTER_RESULT, NULL,
                    NULL);
}

static bool register_unknown(QemuSource *s)
{
    return ask_to_register(s, VM_BLOCKS);
}

static bool register_far(QemuSource *s)
{
    return ask_to_register(s, UINT32_MAX);
}

static bool register_early(QemuSource *s)
{
    return ask_to_register(s, 0);
}

static void register__a_block_that_is_not_there(void **state)
{
    (void)state;
    expect_error(SOURCE_NAMED, register_unknown);
    expect_error(SOURCE_ROUND, register_far);
    expect_error(SOURCE_BEGUN, register_early);
    expect_error(SOURCE_READY, register_early);
}

/* --- zeros --- */

static bool say_zeros(QemuSource *s, const V1Zero *zero)
{
    uint8_t body[V1_ZERO_BYTES];

    v1_zero_encode(zero, body);
    return link_exchange(&s->link, V1_COMPRESS, body, sizeof(body));
}

static bool zero_unknown(QemuSource *s)
{
    return say_zeros(s, &(V1Zero){.block = VM_BLOCKS, .length = VM_PAGE});
}

static bool zero_beyond(QemuSource *s)
{
    return say_zeros(s, &(V1Zero){.block = 2, .offset = vm_block_bytes[2], .length = VM_PAGE});
}

static bool zero_around(QemuSource *s)
{
    return say_zeros(s, &(V1Zero){.block = 2, .offset = VM_PAGE, .length = UINT64_MAX});
}

static bool zero_with_ones(QemuSource *s)
{
    return say_zeros(s, &(V1Zero){.value = 1, .block = 0, .length = VM_PAGE});
}

static void zeros__outside_of_ram(void **state)
{
    (void)state;
    expect_error(SOURCE_NAMED, zero_unknown);
    expect_error(SOURCE_NAMED, zero_beyond);
    expect_error(SOURCE_NAMED, zero_around);
    expect_error(SOURCE_NAMED, zero_with_ones);
    expect_error(SOURCE_BEGUN, zero_unknown);
}

/* --- writes --- */

static bool write_to(QemuSource *s, unsigned from, uint64_t offset, uint32_t length,
                     uint64_t remote)
{
    struct ibv_mr *mr =
        false_reg_mr(s->link.pd, s->vm->blocks[from], vm_block_bytes[from], IBV_ACCESS_LOCAL_WRITE);
    bool ok;

    g_assert_nonnull(mr);
    ok = link_write(&s->link, s->vm->blocks[from] + offset, length, mr->lkey, remote, 0) &&
         link_drain(&s->link);
    g_assert_cmpint(false_dereg_mr(mr), ==, 0);
    return ok;
}

static bool write_beyond(QemuSource *s)
{
    return write_to(s, 0, 0, 2 * VM_PAGE, s->remote[2] + vm_block_bytes[2] - VM_PAGE);
}

static bool write_before(QemuSource *s)
{
    return write_to(s, 0, 0, VM_PAGE, s->remote[0] - VM_PAGE);
}

static bool write_nowhere(QemuSource *s)
{
    return write_to(s, 0, 0, VM_PAGE, 0);
}

static bool write_far(QemuSource *s)
{
    return write_to(s, 0, 0, VM_PAGE, UINT64_MAX - VM_PAGE + 1);
}

/* The block's memory is known from the first round. */
static bool write_from_elsewhere(QemuSource *s)
{
    return write_to(s, 0, 0, VM_PAGE, s->remote[2]);
}

static bool write_early(QemuSource *s)
{
    return write_to(s, 0, 0, VM_PAGE, 1ull << 44);
}

static void writes__outside_of_ram(void **state)
{
    (void)state;
    expect_error(SOURCE_WROTE, write_beyond);
    expect_error(SOURCE_WROTE, write_before);
    expect_error(SOURCE_WROTE, write_nowhere);
    expect_error(SOURCE_WROTE, write_far);
    expect_error(SOURCE_ROUND, write_from_elsewhere);
    expect_error(SOURCE_BEGUN, write_early);
}

/* --- messages --- */

static bool say_type(QemuSource *s, V1Type type)
{
    return link_exchange(&s->link, type, NULL, 0);
}

static bool say_ready(QemuSource *s)
{
    return say_type(s, V1_READY);
}

static bool say_unregistered(QemuSource *s)
{
    return say_type(s, V1_UNREGISTER_FINISHED);
}

static bool ask_for_blocks_again(QemuSource *s)
{
    return link_ask(&s->link, V1_RAM_BLOCKS_REQUEST, NULL, 0, V1_RAM_BLOCKS_RESULT, NULL, NULL);
}

/* A header that does not fit its message. */
static bool say_a_wrong_length(QemuSource *s)
{
    struct ibv_sge sge = {.addr = (uintptr_t)s->link.buffers[LINK_CONTROL],
                          .length = 3,
                          .lkey = s->link.mrs[LINK_CONTROL]->lkey};
    struct ibv_send_wr wr = {.wr_id = LINK_SEND,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .sg_list = &sge,
                             .num_sge = 1};
    struct ibv_send_wr *bad;

    return ibv_post_send(s->link.qp, &wr, &bad) == 0 && link_await(&s->link, LINK_SEND, NULL);
}

static bool read_remote_memory(QemuSource *s)
{
    struct ibv_sge sge = {.addr = (uintptr_t)s->link.buffers[LINK_CONTROL],
                          .length = VM_PAGE,
                          .lkey = s->link.mrs[LINK_CONTROL]->lkey};
    struct ibv_send_wr wr = {.wr_id = LINK_WRITE,
                             .opcode = IBV_WR_RDMA_READ,
                             .send_flags = IBV_SEND_SIGNALED,
                             .sg_list = &sge,
                             .num_sge = 1};
    struct ibv_send_wr *bad;

    return ibv_post_send(s->link.qp, &wr, &bad) == 0;
}

static void messages__that_a_source_does_not_say(void **state)
{
    (void)state;
    expect_error(SOURCE_READY, say_ready);
    expect_error(SOURCE_NAMED, say_unregistered);
    expect_error(SOURCE_READY, ask_for_blocks_again);
    expect_error(SOURCE_NAMED, ask_for_blocks_again);
    expect_error(SOURCE_READY, say_no_stream);
    expect_error(SOURCE_ROUND, say_no_stream);
    expect_error(SOURCE_ROUND, say_a_wrong_length);
    expect_error(SOURCE_ROUND, read_remote_memory);
}

/* --- a destination --- */

static DestinationStep destination_step;
static bool (*destination_act)(QemuDestination *d);

static bool destination_acts(void *opaque, DestinationStep step)
{
    Rig *rig = opaque;

    return step != destination_step || destination_act(&rig->destination);
}

static bool say_blocks(QemuDestination *d, unsigned count, uint64_t length)
{
    g_autofree uint8_t *body = g_malloc0(count * V1_BLOCK_BYTES);

    for (unsigned i = 0; i < count; i++) {
        const V1Block block = {.host = (uintptr_t)d->vm->blocks[0], .length = length};

        v1_block_encode(&block, body + (size_t)i * V1_BLOCK_BYTES);
    }
    return link_send(&d->link, V1_RAM_BLOCKS_RESULT, 1, body, count * V1_BLOCK_BYTES) &&
           link_receive(&d->link);
}

static bool say_too_few_blocks(QemuDestination *d)
{
    return say_blocks(d, VM_BLOCKS - 1, VM_PAGE);
}

static bool say_overlapping_blocks(QemuDestination *d)
{
    return say_blocks(d, VM_BLOCKS, VM_PAGE);
}

static bool say_endless_blocks(QemuDestination *d)
{
    return say_blocks(d, VM_BLOCKS, UINT64_MAX);
}

static bool say_finished(QemuDestination *d)
{
    return link_send(&d->link, V1_REGISTER_FINISHED, 1, NULL, 0);
}

static void expect_destination_error(DestinationStep step, bool (*act)(QemuDestination *d))
{
    Rig rig;

    rig_init(&rig);
    rig.destination.at = destination_acts;
    destination_step = step;
    destination_act = act;
    rig_run(&rig);
    rig_assert_kept(&rig);
    rig_clear(&rig);
}

static void destination__says_what_is_wrong(void **state)
{
    (void)state;
    expect_destination_error(DESTINATION_ASKED, say_too_few_blocks);
    expect_destination_error(DESTINATION_ASKED, say_overlapping_blocks);
    expect_destination_error(DESTINATION_ASKED, say_endless_blocks);
    expect_destination_error(DESTINATION_BEGUN, say_finished);
    expect_destination_error(DESTINATION_LOADED, say_finished);
}

/* A connection request that is not of version 1. */
static void connect__another_version(void **state)
{
    uint8_t data[V1_CAPABILITIES_BYTES] = {0, 0, 0, 2};
    struct rdma_conn_param param = {.private_data = data, .private_data_len = sizeof(data)};
    QemuLink link;
    Rig rig;

    (void)state;
    rig_init(&rig);
    link_init(&link, rig.devices[0]);
    link_resolve(&link, rig.host, rig.service);
    assert_int_equal(false_connect(link.id, &param), -1);
    param.private_data_len = 0;
    assert_int_equal(false_connect(link.id, &param), -1);
    link_end(&link, LINK_VANISHES);
    rig_clear(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors__are_told_on_both_sides),
        cmocka_unit_test(postcopy__is_refused_at_its_beginning),
        cmocka_unit_test(register__a_block_that_is_not_there),
        cmocka_unit_test(zeros__outside_of_ram),
        cmocka_unit_test(writes__outside_of_ram),
        cmocka_unit_test(messages__that_a_source_does_not_say),
        cmocka_unit_test(destination__says_what_is_wrong),
        cmocka_unit_test(connect__another_version),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, rig_set_up_group, rig_tear_down_group);
}
