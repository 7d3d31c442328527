/* SPDX-License-Identifier: BSD-2-Clause */
/* test-queue.c -- how much RAM waits for the channels, how it is cut, and how it is counted */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include <vmferry/plugin/transport.h>

#include "support/pair.h"

#define PAGE 4096ull
#define MIB (1024ull * 1024)

/*
 * A transport of this test: sockets with a layer between them and the engine. The data of the
 * channels goes nowhere.
 */
static VmfTransport held;
static const VmfTransport *real;
static VmfUri *real_uri;
static struct {
    GMutex lock;
    GCond changed;
    uint64_t saved, given; /* bytes */
    uint64_t most;         /* bytes that waited between the two */
    uint64_t hold_until;   /* channels are held until `saved' has reached it */
    uint64_t partial;      /* zero ranges that are not whole pages */
    bool counts;
} seen;

static VmfConn *held_connect(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                             GCancellable *cancel, GError **error)
{
    (void)uri;
    return real->connect(real_uri, uuid, cancel, error);
}

static bool held_send_ram(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                          uint64_t length, GError **error)
{
    if (!seen.counts) {
        return real->send_ram(conn, channel, block, offset, length, error);
    }
    g_mutex_lock(&seen.lock);
    while (seen.saved < seen.hold_until) {
        g_cond_wait(&seen.changed, &seen.lock);
    }
    if (seen.saved >
        seen.given) { /* a piece is noted after it was saved, and may be sent by then */
        seen.most = MAX(seen.most, seen.saved - seen.given);
    }
    seen.given += length;
    g_mutex_unlock(&seen.lock);
    return true;
}

static bool held_send_zero(VmfConn *conn, unsigned channel, unsigned block, uint64_t offset,
                           uint64_t length, GError **error)
{
    const uint64_t end = offset + length;

    g_mutex_lock(&seen.lock);
    seen.partial += offset % PAGE != 0 || (end % PAGE != 0 && end != conn->blocks[block]->length);
    g_mutex_unlock(&seen.lock);
    return real->send_zero(conn, channel, block, offset, length, error);
}

static void *accept_main(void *opaque)
{
    Pair *pair = opaque;

    return vmf_session_accept(pair->listener, pair->destination_blocks, NULL, NULL);
}

/* The pair's source goes through the transport of the test. */
static void connect_held(Pair *pair)
{
    GThread *thread = g_thread_new("accept", accept_main, pair);
    g_autofree char *text = g_strconcat("held:127.0.0.1:1", pair->options, NULL);
    g_autoptr(VmfUri) uri = NULL;

    memset(&seen, 0, sizeof(seen));
    if (!real) {
        real = vmf_transport_find("unix", NULL);
        held = *real;
        held.scheme = "held";
        held.connect = held_connect;
        held.send_ram = held_send_ram;
        held.send_zero = held_send_zero;
        assert_true(vmf_transport_register(&held, NULL));
    }
    real_uri = pair_uri(pair);
    uri = vmf_uri_parse(text, NULL);
    assert_non_null(uri);
    pair->source = vmf_session_connect(uri, pair->source_blocks, NULL, NULL);
    pair->destination = g_thread_join(thread);
    assert_true(pair->source && pair->destination);
    vmf_uri_unref(real_uri);
}

static void note_saved(uint64_t bytes)
{
    g_mutex_lock(&seen.lock);
    seen.saved += bytes;
    g_cond_broadcast(&seen.changed);
    g_mutex_unlock(&seen.lock);
}

static uint64_t queue_max(const Pair *pair)
{
    VmfStats stats = {.size = sizeof(stats)};

    vmf_session_get_stats(pair->source, &stats);
    return stats.queue_max;
}

/* Saves `size' bytes in pieces, faster than the channels take them. */
static void save_faster(Pair *pair, uint64_t size, uint64_t piece)
{
    VmfFile *file = vmf_session_get_file(pair->source);

    seen.counts = true;
    seen.hold_until = queue_max(pair) / 2; /* so much is taken while no channel works */
    for (uint64_t at = 0; at < size; at += piece) {
        assert_true(vmf_save_ram_page(file, pair->block, at, piece));
        note_saved(piece);
    }
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
}

static void queue__is_bounded_whatever_the_channels(void **state)
{
    static const struct {
        const char *options;
        uint64_t piece, most;
    } cases[] = {
        {",channels=1,zero-detect=off", 64 * 1024, 32 * MIB},
        {",channels=16,zero-detect=off", 32 * 1024, 32 * MIB},
        {",channels=64,zero-detect=off", 64 * 1024, 32 * MIB},
        {",channels=64,zero-detect=off", 8 * MIB, 32 * MIB},
        {",channels=4,zero-detect=off,max-inflight=1M", 64 * 1024, MIB},
        {",channels=64,zero-detect=off,max-inflight=64K", 8192, 64 * 1024},
    };
    const uint64_t size = 256 * MIB;

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Pair pair;

        pair_init(&pair, size, false, cases[i].options);
        connect_held(&pair);
        assert_true(queue_max(&pair) > 0 && queue_max(&pair) <= cases[i].most);
        save_faster(&pair, size, cases[i].piece);
        assert_int_equal(seen.given, size);
        if (seen.most > queue_max(&pair)) {
            fail_msg("%s: %" G_GUINT64_FORMAT " KiB waited, at most are %" G_GUINT64_FORMAT " KiB",
                     cases[i].options, seen.most / 1024, queue_max(&pair) / 1024);
        }
        pair_clear(&pair);
    }
}

/* A zero part of a page is not a zero page, wherever ranges begin and end. */
static void zero__is_told_of_whole_pages_alone(void **state)
{
    const uint64_t size = 4 * MIB + 100;
    g_autoptr(GRand) random = g_rand_new_with_seed(3);
    VmfFile *file;
    Pair pair;

    (void)state;
    pair_init(&pair, size, true, ",channels=2");
    connect_held(&pair);
    file = vmf_session_get_file(pair.source);
    memset(pair.destination_ram, 0x44, size);
    for (unsigned turn = 0; turn < 50; turn++) {
        const uint64_t at = (uint64_t)g_rand_int_range(random, 0, (gint)size - 1);
        const uint64_t length =
            (uint64_t)g_rand_int_range(random, 1, (gint)MIN(size - at, 300000) + 1);

        memset(pair.source_ram + at, turn % 3 ? 0 : 1, length);
        assert_true(vmf_save_ram_page(file, pair.block, at, length));
    }
    assert_true(vmf_save_ram_page(file, pair.block, 0, size));
    pair_complete(&pair);
    assert_int_equal(seen.partial, 0);
    pair_clear(&pair);
}

/* --- what is counted --- */

static void count__is_without_zero_pages(void **state)
{
    const uint64_t size = 64 * MIB;
    VmfFile *file;
    Pair pair;

    (void)state;
    pair_init(&pair, size, false, ",channels=4");
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    memset(pair.source_ram + MIB, 1, MIB);
    vmf_file_set_rate_limit(file, 64 * MIB);
    pair_save_all(&pair, PAGE);
    /* During the round, zero pages count at most as far as RAM may wait and be in flight. */
    assert_true(vmf_file_tell(file) <= queue_max(&pair) + MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    assert_int_equal(vmf_file_tell(file), MIB);
    assert_false(vmf_file_rate_exceeded(file)); /* 1 MiB of 6.4 in a tenth of a second */
    /* Nothing is left over for the next round. */
    memset(pair.source_ram, 1, 8 * MIB);
    for (uint64_t at = 0; at < 8 * MIB; at += PAGE) {
        assert_true(vmf_save_ram_page(file, pair.block, at, PAGE));
    }
    assert_int_equal(vmf_file_tell(file), 9 * MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    vmf_put_be64(file, 7);
    assert_int_equal(vmf_file_tell(file), 9 * MIB + 8);
    assert_true(vmf_file_flush(file, NULL));
    assert_int_equal(vmf_get_be64(vmf_session_get_file(pair.destination)), 7);
    pair_complete(&pair);
    pair_clear(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue__is_bounded_whatever_the_channels),
        cmocka_unit_test(zero__is_told_of_whole_pages_alone),
        cmocka_unit_test(count__is_without_zero_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
