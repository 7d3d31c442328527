/* SPDX-License-Identifier: BSD-2-Clause */
/* pair.c -- a source and a destination in one process, over any transport, for the tests */

#include "pair.h"

#include <glib/gstdio.h>
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

bool pair_is_rdma(void)
{
    const char *uri = g_getenv("VMFERRY_TEST_URI");

    return uri && g_str_has_prefix(uri, "rdma:");
}

static uint8_t *map(uint64_t size, bool populate)
{
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | (populate ? MAP_POPULATE : 0), -1, 0);

    assert_true(memory != MAP_FAILED);
    /* One touch must make one page resident, for the tests that count them. */
    madvise(memory, size, MADV_NOHUGEPAGE);
    if (populate) { /* bulk mappings, see the benchmark */
        mprotect(memory, size, PROT_READ);
        mprotect(memory, size, PROT_READ | PROT_WRITE);
    }
    return memory;
}

/*
 * A guest writes its RAM while it is read, by design. ThreadSanitizer would check every word of
 * that, for minutes.
 */
__attribute__((no_sanitize("thread"))) void pair_fill(uint8_t *memory, uint64_t size, uint32_t seed)
{
    uint64_t state = seed * 2654435761u + 1;

    for (uint64_t i = 0; i + 8 <= size; i += 8) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(memory + i, &state, 8);
    }
}

void pair_save_all(Pair *pair, uint64_t piece)
{
    VmfFile *file = vmf_session_get_file(pair->source);

    for (uint64_t at = 0; at < pair->size; at += piece) {
        assert_true(vmf_save_ram_page(file, pair->block, at, MIN(piece, pair->size - at)));
    }
}

void pair_init(Pair *pair, uint64_t size, bool populate, const char *options)
{
    const char *base = g_getenv("VMFERRY_TEST_URI");
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    g_autoptr(VmfUri) uri = NULL;

    memset(pair, 0, sizeof(*pair));
    pair->size = size;
    pair->options = g_strdup(options);
    if (!base) {
        pair->directory = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
        assert_non_null(pair->directory);
        text = g_strdup_printf("unix:%s/s%s", pair->directory, options);
    } else {
        text = g_strconcat(base, options, NULL);
    }
    uri = vmf_uri_parse(text, &error);
    assert_null(error);
    pair->listener = vmf_listener_new(uri, &error);
    if (error) {
        fail_msg("%s", error->message);
    }
    pair->source_ram = map(size, populate);
    pair->destination_ram = map(size, populate);
    pair->source_blocks = vmf_ram_blocks_new();
    pair->destination_blocks = vmf_ram_blocks_new();
    pair->block =
        vmf_ram_blocks_add(pair->source_blocks, "ram", pair->source_ram, size, 4096, NULL);
    assert_non_null(pair->block);
    assert_non_null(vmf_ram_blocks_add(pair->destination_blocks, "ram", pair->destination_ram, size,
                                       4096, NULL));
}

void pair_clear(Pair *pair)
{
    pair_disconnect(pair);
    vmf_listener_free(pair->listener);
    vmf_ram_blocks_unref(pair->source_blocks);
    vmf_ram_blocks_unref(pair->destination_blocks);
    munmap(pair->source_ram, pair->size);
    munmap(pair->destination_ram, pair->size);
    if (pair->directory) {
        g_rmdir(pair->directory);
    }
    g_free(pair->directory);
    g_free(pair->options);
}

VmfUri *pair_uri(Pair *pair)
{
    g_autofree char *text = g_strconcat(vmf_listener_address(pair->listener), pair->options, NULL);
    g_autoptr(GError) error = NULL;
    VmfUri *uri = vmf_uri_parse(text, &error);

    assert_null(error);
    return uri;
}

typedef struct Accepting {
    Pair *pair;
    GCancellable *cancel;
    GError *error;
} Accepting;

static void *accept_main(void *opaque)
{
    Accepting *a = opaque;

    a->pair->destination =
        vmf_session_accept(a->pair->listener, a->pair->destination_blocks, a->cancel, &a->error);
    return NULL;
}

bool pair_try_connect(Pair *pair, GError **source_error, GError **destination_error)
{
    g_autoptr(VmfUri) uri = pair_uri(pair);
    Accepting a = {.pair = pair, .cancel = g_cancellable_new()};
    GThread *thread = g_thread_new("accept", accept_main, &a);

    pair->source = vmf_session_connect(uri, pair->source_blocks, NULL, source_error);
    if (!pair->source) { /* perhaps no source ever connected */
        g_usleep(300000);
        g_cancellable_cancel(a.cancel);
    }
    g_thread_join(thread);
    g_object_unref(a.cancel);
    if (a.error) {
        g_propagate_error(destination_error, a.error);
    }
    return pair->source && pair->destination;
}

void pair_connect(Pair *pair)
{
    g_autoptr(GError) source = NULL;
    g_autoptr(GError) destination = NULL;

    if (!pair_try_connect(pair, &source, &destination)) {
        fail_msg("source: %s; destination: %s", source ? source->message : "fine",
                 destination ? destination->message : "fine");
    }
}

void pair_accept_nobody(Pair *pair, bool (*enough)(const Pair *pair))
{
    const gint64 deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    Accepting a = {.pair = pair, .cancel = g_cancellable_new()};
    GThread *thread = g_thread_new("accept", accept_main, &a);

    while (!enough(pair) && g_get_monotonic_time() < deadline) {
        g_usleep(10000);
    }
    g_cancellable_cancel(a.cancel);
    g_thread_join(thread);
    g_object_unref(a.cancel);
    g_clear_error(&a.error);
    assert_null(pair->destination);
}

void pair_disconnect(Pair *pair)
{
    /* The destination waits for the source to close, so the source goes first. */
    vmf_session_free(g_steal_pointer(&pair->source));
    vmf_session_free(g_steal_pointer(&pair->destination));
}

GThread *pair_destination(Pair *pair, GThreadFunc f)
{
    return g_thread_new("destination", f, pair);
}

static void *complete_main(void *opaque)
{
    Pair *pair = opaque;
    GError *error = NULL;

    vmf_session_complete(pair->destination, &error);
    return error;
}

void pair_complete_unchecked(Pair *pair)
{
    GThread *thread = pair_destination(pair, complete_main);
    g_autoptr(GError) source = NULL;
    g_autoptr(GError) destination = NULL;

    vmf_session_complete(pair->source, &source);
    destination = g_thread_join(thread);
    if (source || destination) {
        fail_msg("source: %s; destination: %s", source ? source->message : "fine",
                 destination ? destination->message : "fine");
    }
}

void pair_complete(Pair *pair)
{
    pair_complete_unchecked(pair);
    assert_memory_equal(pair->source_ram, pair->destination_ram, pair->size);
}
