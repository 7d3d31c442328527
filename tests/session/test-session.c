/* SPDX-License-Identifier: BSD-2-Clause */
/* test-session.c -- whole migrations within one process, over the transport under test */

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "support/pair.h"
#include "support/resident.h"
#include "support/test-filter.h"

#define MIB (1024u * 1024)

/* After all RAM was scanned, the file's position counts no zero page. */
static void assert_sent_is_counted(const Pair *pair)
{
    VmfFile *file = vmf_session_get_file(pair->source);
    VmfStats stats = {.size = sizeof(stats)};

    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    vmf_session_get_stats(pair->source, &stats);
    assert_int_equal(stats.ram_bytes, pair->size);
    assert_int_equal(vmf_file_tell(file), stats.ram_bytes - stats.zero_bytes);
}

static void migrate_with(const char *options, uint64_t size, uint64_t piece)
{
    Pair pair;

    pair_init(&pair, size, true, options);
    pair_fill(pair.source_ram, size, 7);
    memset(pair.destination_ram, 0xee, size);
    memset(pair.source_ram + size / 3, 0, size / 5); /* and zero pages in the middle */
    pair_connect(&pair);
    pair_save_all(&pair, piece);
    assert_sent_is_counted(&pair);
    pair_complete(&pair);
    pair_clear(&pair);
}

static void ram__arrives_whatever_the_channels(void **state)
{
    static const char *const options[] = {",channels=1", ",channels=2", ",channels=4",
                                          ",channels=8"};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        migrate_with(options[i], 8 * MIB, 4096);
    }
}

static void ram__arrives_whatever_the_sizes(void **state)
{
    (void)state;
    migrate_with(",channels=3", 5 * MIB + 12345, 4096);
    migrate_with(",channels=2", 3 * MIB + 1, 65536);
    migrate_with(",channels=2", 4096, 4096);
    migrate_with(",channels=2", 777, 777);
    migrate_with(",channels=2,max-inflight=64K", 6 * MIB + 4095, 3 * MIB);
}

static void ram__zero_then_data_then_zero_ends_right(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 4 * MIB, true, ",channels=2");
    memset(pair.destination_ram, 0x77, pair.size);
    pair_connect(&pair);
    /* Each page goes zero -> data -> zero -> data, with and without a round between. */
    for (unsigned turn = 0; turn < 6; turn++) {
        VmfFile *file = vmf_session_get_file(pair.source);

        for (uint64_t at = 0; at < pair.size; at += 4096) {
            memset(pair.source_ram + at, turn % 2 ? (int)(at / 4096 + turn) | 1 : 0, 4096);
            assert_true(vmf_save_ram_page(file, pair.block, at, 4096));
        }
        if (turn % 3 == 2) {
            assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
        }
    }
    pair_save_all(&pair, 4096);
    pair_complete(&pair);
    pair_clear(&pair);
}

static void ram__that_was_started_goes_without_a_drain(void **state)
{
    Pair pair;
    VmfStats stats = {.size = sizeof(stats)};

    (void)state;
    pair_init(&pair, 4 * MIB, true, ",channels=2");
    pair_fill(pair.source_ram, MIB, 1);
    pair_connect(&pair);
    pair_save_all(&pair, 4096); /* less than a channel gathers before it begins by itself */
    for (unsigned i = 0; i < 3000 && stats.ram_written + stats.zero_bytes < pair.size; i++) {
        assert_true(vmf_flush_ram_pages(vmf_session_get_file(pair.source), VMF_FLUSH_START));
        g_usleep(10000);
        vmf_session_get_stats(pair.source, &stats);
    }
    assert_int_equal(stats.ram_written, MIB);
    assert_int_equal(stats.zero_bytes, 3 * MIB);
    pair_complete(&pair);
    pair_clear(&pair);
}

static void ram__sparse_dirty_rounds_arrive(void **state)
{
    Pair pair;
    g_autoptr(GRand) random = g_rand_new_with_seed(3);

    (void)state;
    pair_init(&pair, 16 * MIB, true, ",channels=4");
    pair_fill(pair.source_ram, pair.size, 1);
    pair_connect(&pair);
    pair_save_all(&pair, 4096);
    for (unsigned round = 0; round < 10; round++) {
        VmfFile *file = vmf_session_get_file(pair.source);

        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
        for (unsigned i = 0; i < 300; i++) {
            uint64_t page = g_rand_int_range(random, 0, (gint32)(pair.size / 4096));

            pair_fill(pair.source_ram + page * 4096, 4096, g_rand_int(random));
            assert_true(vmf_save_ram_page(file, pair.block, page * 4096, 4096));
        }
    }
    pair_complete(&pair);
    pair_clear(&pair);
}

static void ram__never_touched_memory_stays_so_on_both_sides(void **state)
{
    Pair pair;

    (void)state;
    pair_init(&pair, 64 * MIB, false, ",channels=2");
    pair_fill(pair.source_ram, 4 * MIB, 9);
    pair_connect(&pair);
    pair_save_all(&pair, 4096);
    assert_true(vmf_flush_ram_pages(vmf_session_get_file(pair.source), VMF_FLUSH_ROUND));
    /* No untouched page was read (which would map it) or written. Whole chunks of data may be. */
    assert_int_equal(resident_pages(pair.source_ram, pair.size), 4 * MIB / 4096);
    pair_complete_unchecked(&pair);
    assert_int_equal(resident_pages(pair.destination_ram, pair.size), 4 * MIB / 4096);
    assert_memory_equal(pair.source_ram, pair.destination_ram, 4 * MIB);
    pair_clear(&pair);
}

/* --- RAM that is made resident while the destination waits --- */

static bool all_resident(const Pair *pair)
{
    return resident_pages(pair->destination_ram, pair->size) == pair->size / 4096;
}

static void let_it_populate(Pair *pair)
{
    pair_accept_nobody(pair, all_resident);
    if (!all_resident(pair)) {
        fail_msg("not all RAM was made resident: has this machine memory to spare?");
    }
}

static uint64_t populated_bytes(const Pair *pair)
{
    VmfStats stats = {.size = sizeof(stats)};

    vmf_session_get_stats(pair->destination, &stats);
    return stats.populated_bytes;
}

static void ram__made_ahead_is_given_back_where_it_is_not_needed(void **state)
{
    VmfFile *file;
    Pair pair;

    (void)state;
    pair_init(&pair, 64 * MIB, false, ",channels=2");
    vmf_ram_blocks_set_discardable(pair.destination_blocks);
    let_it_populate(&pair);
    pair.destination_ram[5 * MIB] = 0xaa; /* as of a firmware, where the source has nothing */
    pair.destination_ram[63 * MIB + 7] = 0xbb;
    pair_fill(pair.source_ram, 4 * MIB, 9);
    memset(pair.source_ram + 32 * MIB, 1, 4 * MIB);
    pair_connect(&pair);
    assert_int_equal(populated_bytes(&pair), pair.size);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, 4096);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    /* Data becomes zero, and zero becomes data: registered memory must not be given back. */
    memset(pair.source_ram + 32 * MIB, 0, 2 * MIB);
    assert_true(vmf_save_ram_page(file, pair.block, 32 * MIB, 2 * MIB));
    pair_fill(pair.source_ram + 48 * MIB, 4 * MIB, 5);
    assert_true(vmf_save_ram_page(file, pair.block, 48 * MIB, 4 * MIB));
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    pair_fill(pair.source_ram + 32 * MIB, MIB, 6);
    assert_true(vmf_save_ram_page(file, pair.block, 32 * MIB, MIB));
    pair_complete_unchecked(&pair);
    /* rdma's chunks are of 4 MiB here, and stay resident as a whole. */
    assert_int_equal(resident_pages(pair.destination_ram, pair.size),
                     (pair_is_rdma() ? 12 : 11) * MIB / 4096);
    assert_memory_equal(pair.source_ram, pair.destination_ram, pair.size);
    pair_clear(&pair);
}

static void *allocate(void *opaque, const char *name, uint64_t length, GError **error)
{
    (void)name;
    (void)error;
    assert_int_equal(length, MIB);
    return opaque;
}

/* The block that only the source has did not exist when RAM was made ready. */
static void ram__made_ahead_in_a_set_that_grows_is_given_back(void **state)
{
    static uint8_t here[MIB] __attribute__((aligned(4096))),
        there[MIB] __attribute__((aligned(4096)));
    const VmfRamBlock *more;
    VmfFile *file;
    Pair pair;

    (void)state;
    pair_init(&pair, 16 * MIB, false, "");
    vmf_ram_blocks_set_discardable(pair.destination_blocks);
    vmf_ram_blocks_set_allocator(pair.destination_blocks, allocate, there);
    let_it_populate(&pair);
    more = vmf_ram_blocks_add(pair.source_blocks, "more", here, MIB, 4096, NULL);
    assert_non_null(more);
    memset(there, 0xcc, MIB);
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, MIB);
    assert_true(vmf_save_ram_page(file, more, 0, MIB));
    pair_complete_unchecked(&pair);
    assert_int_equal(resident_pages(pair.destination_ram, pair.size), 0);
    assert_memory_equal(here, there, MIB);
    pair_clear(&pair);
}

static void ram__is_not_made_ahead_without_permission(void **state)
{
    const char *options[] = {"", ",populate=off"};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        Pair pair;

        pair_init(&pair, 16 * MIB, false, options[i]);
        if (i) {
            vmf_ram_blocks_set_discardable(pair.destination_blocks);
        }
        memset(pair.source_ram, 1, 4096);
        pair_connect(&pair);
        assert_int_equal(populated_bytes(&pair), 0);
        pair_save_all(&pair, 4096);
        pair_complete(&pair);
        pair_clear(&pair);
    }
}

/* --- stream --- */

#define STREAM_ROUNDS 40

static void *read_stream(void *opaque)
{
    Pair *pair = opaque;
    VmfFile *file = vmf_session_get_file(pair->destination);
    g_autoptr(VmfFile) back = vmf_file_get_return_path(file, NULL);
    bool ok = true;

    for (unsigned i = 0; ok && i < STREAM_ROUNDS; i++) {
        uint32_t size = vmf_get_be32(file);
        uint64_t offset = vmf_get_be64(file);
        uint32_t content = vmf_get_be32(file);
        uint32_t there;

        /* The bytes say what RAM must hold by now. */
        memcpy(&there, pair->destination_ram + MIN(offset, pair->size - 4), 4);
        ok = there == content && size <= 64 * MIB;
        for (uint32_t at = 0; ok && at < size;) {
            uint8_t bytes[50000];
            size_t part = MIN(sizeof(bytes), size - at);

            ok = vmf_get_buffer(file, bytes, part) == part;
            for (size_t j = 0; ok && j < part; j++) {
                ok = bytes[j] == (uint8_t)((at + j) * 7 + i);
            }
            at += (uint32_t)part;
        }
        vmf_put_byte(back, ok);
        vmf_file_flush(back, NULL);
    }
    return GINT_TO_POINTER(ok && vmf_file_check(file, NULL));
}

static void stream__never_overtakes_ram(void **state)
{
    static const uint32_t sizes[] = {1, 3, 4096, 32768, 100000, 1000000, 1, 0};
    Pair pair;
    GThread *reader;
    VmfFile *file;
    g_autoptr(VmfFile) back = NULL;

    (void)state;
    pair_init(&pair, 16 * MIB, true, ",channels=8");
    pair_connect(&pair);
    reader = pair_destination(&pair, read_stream);
    file = vmf_session_get_file(pair.source);
    back = vmf_file_get_return_path(file, NULL);
    for (uint32_t i = 0; i < STREAM_ROUNDS; i++) {
        uint32_t size = sizes[i % G_N_ELEMENTS(sizes)], content = i * 77777 + 1;
        uint64_t offset = (uint64_t)i * 3777 % (pair.size / 4096) * 4096;
        g_autofree uint8_t *bytes = g_malloc(size + 1);

        for (uint32_t j = 0; j < size; j++) {
            bytes[j] = (uint8_t)(j * 7 + i);
        }
        /* Much RAM on every channel, and at its end the page that the stream names. */
        pair_fill(pair.source_ram, pair.size, i);
        memcpy(pair.source_ram + offset, &content, 4);
        for (uint64_t at = 0; at < pair.size; at += 256 * 1024) {
            vmf_save_ram_page(file, pair.block, at, 64 * 1024);
        }
        vmf_save_ram_page(file, pair.block, offset, 4096);
        vmf_put_be32(file, size);
        vmf_put_be64(file, offset);
        vmf_put_be32(file, content);
        vmf_put_buffer(file, bytes, size);
        vmf_file_flush(file, NULL);
        /* RAM is sent from its place, so it must not change until the reader has seen it. */
        assert_int_equal(vmf_get_byte(back), 1);
    }
    assert_int_equal(GPOINTER_TO_INT(g_thread_join(reader)), 1);
    pair_save_all(&pair, MIB);
    pair_complete(&pair);
    g_clear_pointer(&back, vmf_file_free);
    pair_clear(&pair);
}

static void *big_reader(void *opaque)
{
    Pair *pair = opaque;
    VmfFile *file = vmf_session_get_file(pair->destination);
    uint8_t *bytes = g_malloc(64 * MIB);
    bool ok = vmf_get_buffer(file, bytes, 64 * MIB) == 64 * MIB;

    for (uint64_t i = 0; ok && i < 64 * MIB; i += 4099) {
        ok = bytes[i] == (uint8_t)(i * 31);
    }
    g_free(bytes);
    return GINT_TO_POINTER(ok);
}

static void stream__takes_64_mib_in_one_piece(void **state)
{
    Pair pair;
    GThread *reader;
    uint8_t *bytes = g_malloc(64 * MIB);

    (void)state;
    for (uint64_t i = 0; i < 64 * MIB; i++) {
        bytes[i] = (uint8_t)(i * 31);
    }
    pair_init(&pair, MIB, true, ",channels=1");
    pair_connect(&pair);
    reader = pair_destination(&pair, big_reader);
    vmf_put_buffer(vmf_session_get_file(pair.source), bytes, 64 * MIB);
    assert_true(vmf_file_flush(vmf_session_get_file(pair.source), NULL));
    assert_int_equal(GPOINTER_TO_INT(g_thread_join(reader)), 1);
    pair_complete(&pair);
    pair_clear(&pair);
    g_free(bytes);
}

/* Settling does not wait for a reader. */
static void stream__settles_before_it_is_read(void **state)
{
    Pair pair;
    g_autoptr(GError) error = NULL;
    VmfFile *in;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=2,timeout=2s");
    pair_connect(&pair);
    in = vmf_session_get_file(pair.destination);
    assert_true(
        vmf_save_ram_page(vmf_session_get_file(pair.source), pair.block, 0, pair.block->page_size));
    for (unsigned i = 0; i < 1000; i++) {
        vmf_put_be32(vmf_session_get_file(pair.source), i);
    }
    assert_false(vmf_session_settle(pair.destination, NULL));
    assert_true(vmf_session_settle(pair.source, &error));
    assert_true(vmf_session_settle(pair.source, &error)); /* again, with nothing new */
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(vmf_get_be32(in), i);
    }
    pair_complete_unchecked(&pair);
    assert_memory_equal(pair.source_ram, pair.destination_ram, pair.block->page_size);
    pair_clear(&pair);
}

static void stream__return_path_and_polling_work(void **state)
{
    Pair pair;
    VmfFile *out, *in;
    struct pollfd fd = {.events = POLLIN};
    g_autoptr(VmfFile) back_out = NULL;
    g_autoptr(VmfFile) back_in = NULL;

    (void)state;
    pair_init(&pair, MIB, true, ",channels=1");
    pair_connect(&pair);
    out = vmf_session_get_file(pair.source);
    in = vmf_session_get_file(pair.destination);
    fd.fd = vmf_file_get_fd(in);
    assert_true(fd.fd >= 0);
    assert_int_equal(poll(&fd, 1, 0), 0);
    vmf_file_set_blocking(in, false);
    assert_int_equal(vmf_get_be32(in), 0);
    assert_true(vmf_file_would_block(in));
    assert_true(vmf_file_check(in, NULL));
    vmf_put_be32(out, 0xdeadbeef);
    assert_true(vmf_file_flush(out, NULL));
    assert_int_equal(poll(&fd, 1, 10000), 1);
    assert_int_equal(vmf_get_be32(in), 0xdeadbeef);
    assert_false(vmf_file_would_block(in));
    assert_int_equal(poll(&fd, 1, 0), 0);

    back_out = vmf_file_get_return_path(in, NULL);
    back_in = vmf_file_get_return_path(out, NULL);
    assert_non_null(back_out);
    assert_non_null(back_in);
    vmf_put_be64(back_out, 42);
    assert_true(vmf_file_flush(back_out, NULL));
    assert_int_equal(vmf_get_be64(back_in), 42);
    g_clear_pointer(&back_out, vmf_file_free);
    assert_true(vmf_file_at_end(back_in));
    vmf_file_set_blocking(in, true);
    pair_complete(&pair);
    g_clear_pointer(&back_in, vmf_file_free);
    pair_clear(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram__arrives_whatever_the_channels),
        cmocka_unit_test(ram__arrives_whatever_the_sizes),
        cmocka_unit_test(ram__zero_then_data_then_zero_ends_right),
        cmocka_unit_test(ram__that_was_started_goes_without_a_drain),
        cmocka_unit_test(ram__sparse_dirty_rounds_arrive),
        cmocka_unit_test(ram__never_touched_memory_stays_so_on_both_sides),
        cmocka_unit_test(ram__made_ahead_is_given_back_where_it_is_not_needed),
        cmocka_unit_test(ram__made_ahead_in_a_set_that_grows_is_given_back),
        cmocka_unit_test(ram__is_not_made_ahead_without_permission),
        cmocka_unit_test(stream__never_overtakes_ram),
        cmocka_unit_test(stream__takes_64_mib_in_one_piece),
        cmocka_unit_test(stream__settles_before_it_is_read),
        cmocka_unit_test(stream__return_path_and_polling_work),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
