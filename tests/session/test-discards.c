/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test-discards.c -- guest memory that is given back to the system in a migration, and forks
 *
 * Over the transport of VMFERRY_TEST_URI. Only a real device shows what is tested here: it keeps
 * the page frames that were there when memory was registered.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/pair.h"
#include "support/test-filter.h"

#define MIB (1024ul * 1024)
#define RAM (16 * MIB)
#define PAGE 4096ul

static Pair pair;
static VmfFile *file;

/* How the memory is mapped, which says how it is given back. */
typedef enum Kind { ANONYMOUS, MEMFD } Kind;

/* Sockets have the first set of options alone. */
static unsigned variants(unsigned count)
{
    return pair_is_rdma() ? count : 1;
}

/* Replaces the mapping that the pair made. */
static void map_shared(uint8_t *memory, uint64_t size)
{
    const int fd = memfd_create("ram", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_true(mmap(memory, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                     fd, 0) == memory);
    close(fd);
}

static void start(Kind kind, const char *options)
{
    pair_init(&pair, RAM, true, options);
    if (kind == MEMFD) {
        map_shared(pair.source_ram, RAM);
        map_shared(pair.destination_ram, RAM);
    }
    pair_fill(pair.source_ram, RAM, 1);
}

/* Gives memory back, as its mapping needs it, and tells vmferry. */
static void discard(VmfRamBlocks *blocks, Kind kind, uint64_t offset, uint64_t length)
{
    const VmfRamBlock *block = vmf_ram_blocks_get(blocks, 0);

    assert_int_equal(
        madvise(block->host + offset, length, kind == MEMFD ? MADV_REMOVE : MADV_DONTNEED), 0);
    assert_int_equal(block->host[offset], 0);
    vmf_ram_discarded(blocks, block, offset, length);
}

static void save(uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += PAGE) {
        assert_true(vmf_save_ram_page(file, pair.block, at, PAGE));
    }
}

/* The guest writes after a discard, in every stripe, while RAM is under way. */
static void rewritten(Kind kind, const char *options)
{
    start(kind, options);
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    for (unsigned round = 2; round < 5; round++) {
        save(0, RAM / 2); /* it may be under way when memory is discarded */
        for (uint64_t at = 0; at < RAM; at += MIB / 2) {
            discard(pair.source_blocks, kind, at, 64 * PAGE);
            pair_fill(pair.source_ram + at, 48 * PAGE, round); /* the rest reads as zero */
            save(at, 64 * PAGE);
        }
    }
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    pair_complete(&pair);
    pair_clear(&pair);
}

static void rewritten_memory_is_sent_right(void **state)
{
    static const char *const options[] = {",channels=2", ",channels=3,registration=pin-all",
                                          ",channels=2,chunk-size=64K,pin-budget=2M",
                                          ",channels=1,zero-detect=off"};

    (void)state;
    for (unsigned i = 0; i < variants(G_N_ELEMENTS(options)); i++) {
        rewritten(ANONYMOUS, options[i]);
        rewritten(MEMFD, options[i]);
    }
}

static void *discard_upper_half(void *opaque)
{
    (void)opaque;
    for (unsigned round = 0; round < 8; round++) {
        for (uint64_t at = RAM / 2; at < RAM; at += 64 * PAGE) {
            discard(pair.source_blocks, ANONYMOUS, at, 16 * PAGE);
        }
    }
    return NULL;
}

/* A VMM's balloon has its own thread, and waits for no other. */
static void memory_is_discarded_by_another_thread(void **state)
{
    static const char *const options[] = {",channels=2", ",channels=3,registration=pin-all"};

    (void)state;
    for (unsigned i = 0; i < variants(G_N_ELEMENTS(options)); i++) {
        GThread *thread;

        start(ANONYMOUS, options[i]);
        pair_connect(&pair);
        file = vmf_session_get_file(pair.source);
        pair_save_all(&pair, MIB);
        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
        thread = g_thread_new("balloon", discard_upper_half, NULL);
        for (unsigned round = 0; round < 4; round++) {
            save(0,
                 RAM /
                     2); /* in the same chunks' table, and with pin-all by the same registration */
        }
        g_thread_join(thread);
        pair_fill(pair.source_ram + RAM / 2, RAM / 4, 7);
        save(RAM / 2, RAM / 2);
        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
        pair_complete(&pair);
        pair_clear(&pair);
    }
}

/* Memory is told as zero, then gets data, and is then given back. */
static void discarded_memory_is_zero_at_the_destination(void **state)
{
    (void)state;
    start(ANONYMOUS, ",channels=2");
    memset(pair.source_ram, 0, RAM / 2);
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, MIB);
    pair_fill(pair.source_ram, RAM / 4, 9);
    save(0, RAM / 4);
    discard(pair.source_blocks, ANONYMOUS, 0, RAM / 2);
    save(0, RAM / 4);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    pair_complete(&pair);
    pair_clear(&pair);
}

static void *complete(void *opaque)
{
    GError *error = NULL;

    (void)opaque;
    vmf_session_complete(pair.destination, &error);
    return error;
}

/* What the source wrote is lost, so the migration must not succeed. */
static void a_discard_under_the_source_s_writes_ends_the_destination(void **state)
{
    static const char *const options[] = {",channels=2", ",channels=2,registration=pin-all"};

    (void)state;
    for (unsigned i = 0; pair_is_rdma() && i < G_N_ELEMENTS(options); i++) {
        g_autoptr(GError) source = NULL;
        GThread *thread;
        GError *error;

        start(ANONYMOUS, options[i]);
        pair_connect(&pair);
        file = vmf_session_get_file(pair.source);
        pair_save_all(&pair, MIB);
        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
        discard(pair.destination_blocks, ANONYMOUS, 5 * MIB, PAGE);
        save(5 * MIB, PAGE);
        vmf_flush_ram_pages(file, VMF_FLUSH_FINAL);
        thread = pair_destination(&pair, complete);
        assert_false(vmf_session_complete(pair.source, &source));
        error = g_thread_join(thread);
        assert_non_null(error);
        assert_non_null(strstr(error->message, "was discarded while"));
        g_error_free(error);
        pair_clear(&pair);
    }
}

/* Before the source has written there, a discard loses nothing. */
static void a_destination_may_discard_what_is_not_registered(void **state)
{
    (void)state;
    start(ANONYMOUS, ",channels=2");
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    discard(pair.destination_blocks, ANONYMOUS, 0, RAM);
    pair_save_all(&pair, MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    pair_complete(&pair);
    pair_clear(&pair);
}

static bool is_pinned(void)
{
    g_autofree char *status = NULL;
    const char *line;

    assert_true(g_file_get_contents("/proc/self/status", &status, NULL, NULL));
    line = strstr(status, "VmPin:");
    return line && g_ascii_strtoull(line + 6, NULL, 10) * 1024 >= RAM;
}

static void *accept_source(void *opaque)
{
    GError *error = NULL;

    (void)opaque;
    pair.destination = vmf_session_accept(pair.listener, pair.destination_blocks, NULL, &error);
    return error;
}

/* A destination that waits with pinned RAM gives some of it back before the source comes. */
static void memory_pinned_ahead_may_be_discarded(void **state)
{
    g_autoptr(VmfUri) uri = NULL;
    GThread *thread;
    gint64 deadline;

    (void)state;
    if (!pair_is_rdma()) {
        return;
    }
    start(MEMFD, ",channels=2,registration=pin-all");
    memset(pair.destination_ram, 0x55, RAM);
    thread = pair_destination(&pair, accept_source);
    deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    while (!is_pinned()) {
        assert_true(g_get_monotonic_time() < deadline);
        g_usleep(1000);
    }
    discard(pair.destination_blocks, MEMFD, 0, RAM / 2);
    uri = pair_uri(&pair);
    pair.source = vmf_session_connect(uri, pair.source_blocks, NULL, NULL);
    assert_null(g_thread_join(thread));
    assert_non_null(pair.source);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    pair_complete(&pair);
    pair_clear(&pair);
}

/* --- forks --- */

/* Forks a child that touches RAM, if it may, and ends. */
static void fork_once(bool touch)
{
    const pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        for (uint64_t at = 0; touch && at < RAM; at += 16 * PAGE) {
            pair.source_ram[at] ^= 0xff;
            pair.destination_ram[at] ^= 0xff;
        }
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void forks_in_the_middle_change_nothing(void **state)
{
    static const char *const options[] = {",channels=2", ",channels=2,registration=pin-all"};
    /* With RDMAV_FORK_SAFE a child does not have registered memory at all. */
    const bool touch = g_getenv("RDMAV_FORK_SAFE") == NULL;

    (void)state;
    for (unsigned i = 0; i < variants(G_N_ELEMENTS(options)); i++) {
        start(ANONYMOUS, options[i]);
        pair_connect(&pair);
        file = vmf_session_get_file(pair.source);
        for (unsigned round = 2; round < 6; round++) {
            pair_save_all(&pair, MIB);
            fork_once(touch);
            /* This write would copy the page if the child shared it. */
            pair_fill(pair.source_ram, RAM, round);
            fork_once(touch);
        }
        pair_save_all(&pair, MIB);
        assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
        pair_complete(&pair);
        pair_clear(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewritten_memory_is_sent_right),
        cmocka_unit_test(memory_is_discarded_by_another_thread),
        cmocka_unit_test(discarded_memory_is_zero_at_the_destination),
        cmocka_unit_test(a_discard_under_the_source_s_writes_ends_the_destination),
        cmocka_unit_test(a_destination_may_discard_what_is_not_registered),
        cmocka_unit_test(memory_pinned_ahead_may_be_discarded),
        cmocka_unit_test(forks_in_the_middle_change_nothing),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
