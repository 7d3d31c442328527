/* SPDX-License-Identifier: BSD-2-Clause */
/* test-file-fd.c -- migration files over pipes, sockets and disk files, with other threads */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake-file.h"

typedef struct Ends {
    VmfFile *reader, *writer;
    int tid; /* atomic: id of the thread that will block */
} Ends;

static Ends make_ends(bool sockets)
{
    int fds[2];
    Ends ends = {0};

    assert_int_equal(sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds) : pipe(fds), 0);
    ends.reader = vmf_file_new_fd(fds[0], VMF_FILE_READ, NULL);
    ends.writer = vmf_file_new_fd(fds[1], VMF_FILE_WRITE, NULL);
    assert_non_null(ends.reader);
    assert_non_null(ends.writer);
    return ends;
}

static void free_ends(Ends *ends)
{
    vmf_file_free(ends->writer);
    vmf_file_free(ends->reader);
}

/* --- content --- */

#define ROUNDS 64
#define PIECE 50001

static void *write_all(void *opaque)
{
    Ends *ends = opaque;
    uint8_t piece[PIECE];

    for (unsigned i = 0; i < ROUNDS; i++) {
        memset(piece, (int)i, sizeof(piece));
        vmf_put_be32(ends->writer, i);
        vmf_put_buffer(ends->writer, piece, sizeof(piece));
    }
    return GINT_TO_POINTER(vmf_file_close(g_steal_pointer(&ends->writer), NULL));
}

static void read_all(Ends *ends)
{
    uint8_t piece[PIECE], expected[PIECE];

    for (unsigned i = 0; i < ROUNDS; i++) {
        memset(expected, (int)i, sizeof(expected));
        assert_int_equal(vmf_get_be32(ends->reader), i);
        assert_int_equal(vmf_get_buffer(ends->reader, piece, sizeof(piece)), sizeof(piece));
        assert_memory_equal(piece, expected, sizeof(piece));
    }
    assert_true(vmf_file_at_end(ends->reader));
    assert_int_equal(vmf_file_tell(ends->reader), ROUNDS * (PIECE + 4));
}

static void bytes__arrive(bool sockets)
{
    Ends ends = make_ends(sockets);
    GThread *writer = g_thread_new("writer", write_all, &ends);

    read_all(&ends);
    assert_true(GPOINTER_TO_INT(g_thread_join(writer)));
    free_ends(&ends);
}

static void pipe__carries_more_than_it_holds(void **state)
{
    (void)state;
    bytes__arrive(false);
}

static void socket__carries_more_than_it_holds(void **state)
{
    (void)state;
    bytes__arrive(true);
}

static void nothing(int signal)
{
    (void)signal;
}

/* System calls that a signal interrupts are repeated. */
static void signals__do_not_disturb(void **state)
{
    const struct sigaction catch = {.sa_handler = nothing}; /* without SA_RESTART */
    const struct itimerval often = {.it_interval.tv_usec = 300, .it_value.tv_usec = 300};
    const struct itimerval never = {0};
    struct sigaction before;

    (void)state;
    sigaction(SIGALRM, &catch, &before);
    setitimer(ITIMER_REAL, &often, NULL);
    for (unsigned i = 0; i < 10; i++) {
        bytes__arrive(i % 2);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
}

static int open_temporary(char **path)
{
    int fd = g_file_open_tmp("vmferry-test-XXXXXX", path, NULL);

    assert_true(fd >= 0);
    return fd;
}

static void disk_file__is_written_and_read(void **state)
{
    g_autofree char *path = NULL;
    int fd = open_temporary(&path);
    Ends ends = {0};

    (void)state;
    ends.writer = vmf_file_new_fd(fd, VMF_FILE_WRITE, NULL);
    assert_non_null(ends.writer);
    assert_true(GPOINTER_TO_INT(write_all(&ends)));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ends.reader = vmf_file_new_fd(fd, VMF_FILE_READ, NULL);
    assert_non_null(ends.reader);
    assert_int_equal(vmf_file_get_fd(ends.reader), fd); /* a disk file never blocks */
    read_all(&ends);
    unlink(path);
    free_ends(&ends);
}

/* --- refusals --- */

static void assert_refused(int fd, VmfFileMode mode, int code)
{
    g_autoptr(GError) error = NULL;

    assert_null(vmf_file_new_fd(fd, mode, &error));
    assert_int_equal(error->code, code);
}

static void new_fd__refuses_a_descriptor_that_does_not_suit_and_leaves_it_open(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_refused(fds[0], VMF_FILE_WRITE, VMF_ERROR_DIRECTION);
    assert_refused(fds[1], VMF_FILE_READ, VMF_ERROR_DIRECTION);
    assert_int_equal(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
    assert_refused(fds[0], VMF_FILE_READ, VMF_ERROR_IO);
    assert_refused(-1, VMF_FILE_READ, VMF_ERROR_IO);
}

/* A terminal or an inherited pipe belongs to other processes, too. */
static void close__leaves_the_open_file_as_blocking_as_it_was(void **state)
{
    int fds[2], kept;
    VmfFile *writer;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    kept = dup(fds[1]);
    writer = vmf_file_new_fd(fds[1], VMF_FILE_WRITE, NULL);
    assert_true(fcntl(kept, F_GETFL) & O_NONBLOCK);
    assert_true(vmf_file_close(writer, NULL));
    assert_false(fcntl(kept, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fcntl(fds[1], F_GETFL), -1); /* closed */
    close(kept);
    close(fds[0]);
}

/* --- a closed peer --- */

static void closed_reader__is_an_error_and_no_signal(bool sockets)
{
    Ends ends = make_ends(sockets);
    sigset_t pending;
    uint8_t byte = 0;

    vmf_file_free(g_steal_pointer(&ends.reader));
    vmf_put_buffer(ends.writer, &byte, 1);
    assert_false(vmf_file_flush(ends.writer, NULL));
    assert_failed(ends.writer, VMF_ERROR_PEER_LOST, "other end was closed");
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    free_ends(&ends);
}

static void closed_reader__of_a_pipe(void **state)
{
    (void)state;
    closed_reader__is_an_error_and_no_signal(false);
}

static void closed_reader__of_a_socket(void **state)
{
    (void)state;
    closed_reader__is_an_error_and_no_signal(true);
}

static void closed_writer__is_the_end_of_the_stream(void **state)
{
    Ends ends = make_ends(false);

    (void)state;
    vmf_put_be16(ends.writer, 7);
    vmf_file_free(g_steal_pointer(&ends.writer));
    assert_int_equal(vmf_get_be16(ends.reader), 7);
    assert_int_equal(vmf_get_be16(ends.reader), 0);
    assert_failed(ends.reader, VMF_ERROR_EOF, "ended at byte 2");
    free_ends(&ends);
}

/* --- shutting down from another thread --- */

/* Waits until that thread of this process sleeps in the kernel. */
static void await_sleep(int *tid)
{
    char state = '?';

    while (state != 'S') {
        int id = __atomic_load_n(tid, __ATOMIC_ACQUIRE);
        g_autofree char *path = g_strdup_printf("/proc/self/task/%d/stat", id);
        g_autofree char *text = NULL;

        if (id && g_file_get_contents(path, &text, NULL, NULL)) {
            state = strrchr(text, ')')[2];
        }
        g_usleep(1000);
    }
}

static void *block_in_reading(void *opaque)
{
    Ends *ends = opaque;
    uint8_t byte;

    __atomic_store_n(&ends->tid, gettid(), __ATOMIC_RELEASE);
    return GSIZE_TO_POINTER(vmf_get_buffer(ends->reader, &byte, 1));
}

static void *block_in_writing(void *opaque)
{
    Ends *ends = opaque;
    uint8_t piece[4096] = {0};

    __atomic_store_n(&ends->tid, gettid(), __ATOMIC_RELEASE);
    while (vmf_file_check(ends->writer, NULL)) {
        vmf_put_buffer(ends->writer, piece, sizeof(piece));
    }
    return NULL;
}

static void shut_down__wakes(bool sockets, GThreadFunc block)
{
    Ends ends = make_ends(sockets);
    VmfFile *file = block == block_in_reading ? ends.reader : ends.writer;
    GThread *thread = g_thread_new("blocks", block, &ends);

    await_sleep(&ends.tid);
    (void)vmf_file_tell(file); /* allowed from any thread */
    (void)vmf_file_get_fd(file);
    vmf_file_shut_down(file);
    assert_null(g_thread_join(thread));
    assert_failed(file, VMF_ERROR_CANCELLED, "shut down");
    free_ends(&ends);
}

static void shut_down__wakes_a_blocked_reader(void **state)
{
    (void)state;
    shut_down__wakes(false, block_in_reading);
    shut_down__wakes(true, block_in_reading);
}

static void shut_down__wakes_a_blocked_writer(void **state)
{
    (void)state;
    shut_down__wakes(false, block_in_writing);
    shut_down__wakes(true, block_in_writing);
}

/* --- event loops --- */

static bool is_readable(VmfFile *file)
{
    struct pollfd fd = {.fd = vmf_file_get_fd(file), .events = POLLIN};

    assert_true(poll(&fd, 1, 0) >= 0);
    return fd.revents & POLLIN;
}

static void get_fd__polls_readable_for_bytes_the_end_and_failure(void **state)
{
    Ends ends = make_ends(false);

    (void)state;
    vmf_file_set_blocking(ends.reader, false);
    assert_false(is_readable(ends.reader));
    assert_int_equal(vmf_get_be32(ends.reader), 0);
    assert_true(vmf_file_would_block(ends.reader));
    vmf_put_be32(ends.writer, 9);
    assert_true(vmf_file_flush(ends.writer, NULL));
    assert_true(is_readable(ends.reader));
    assert_int_equal(vmf_get_be32(ends.reader), 9);
    assert_false(is_readable(ends.reader));
    vmf_file_free(g_steal_pointer(&ends.writer));
    assert_true(is_readable(ends.reader));
    free_ends(&ends);

    ends = make_ends(true);
    assert_false(is_readable(ends.reader));
    vmf_file_shut_down(ends.reader);
    assert_true(is_readable(ends.reader));
    assert_int_equal(vmf_file_get_fd(ends.writer), -1); /* for reading only */
    free_ends(&ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipe__carries_more_than_it_holds),
        cmocka_unit_test(socket__carries_more_than_it_holds),
        cmocka_unit_test(signals__do_not_disturb),
        cmocka_unit_test(disk_file__is_written_and_read),
        cmocka_unit_test(new_fd__refuses_a_descriptor_that_does_not_suit_and_leaves_it_open),
        cmocka_unit_test(close__leaves_the_open_file_as_blocking_as_it_was),
        cmocka_unit_test(closed_reader__of_a_pipe),
        cmocka_unit_test(closed_reader__of_a_socket),
        cmocka_unit_test(closed_writer__is_the_end_of_the_stream),
        cmocka_unit_test(shut_down__wakes_a_blocked_reader),
        cmocka_unit_test(shut_down__wakes_a_blocked_writer),
        cmocka_unit_test(get_fd__polls_readable_for_bytes_the_end_and_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
