/* SPDX-License-Identifier: BSD-2-Clause */
/* test-preload-engine.c -- tests of libvmferry-qemu.so with other engines, or with none */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <glib.h>
#include <cmocka.h>
#include <rdma/rdma_cma.h>

#include "preload-process.h"
#include "stub-engine.h"

/* The tests run in this order, because an engine that was loaded stays. */

static void assert_no_engine(const char *path, const char *why)
{
    g_autofree char *errors = NULL, *start = g_strdup_printf(" %s: ", path);
    struct rdma_event_channel *channel;
    int error;

    g_setenv("VMFERRY_QEMU_ENGINE", path, TRUE);
    process_catch_errors();
    errno = 0;
    channel = rdma_create_event_channel();
    error = errno;
    errors = process_stop_catching();
    assert_null(channel);
    assert_int_equal(error, ENODEV);
    assert_true(g_str_has_prefix(errors, "vmferry: cannot "));
    assert_non_null(strstr(errors, start));
    assert_non_null(strstr(errors, why));
}

static void an_engine_that_is_not_there_is_an_error(void **state)
{
    struct rdma_addrinfo *info;

    (void)state;
    assert_no_engine("/no/such/engine.so", "No such file");
    process_catch_errors();
    assert_int_equal(rdma_getaddrinfo("192.0.2.1", "1", NULL, &info), -1);
    assert_int_equal(errno, ENODEV);
    g_free(process_stop_catching());
}

static void an_engine_without_its_symbol_is_an_error(void **state)
{
    (void)state;
    assert_no_engine(g_getenv("TEST_HELPER"), "it has no vmferry_qemu_engine");
}

static void an_engine_of_another_version_is_an_error(void **state)
{
    (void)state;
    g_setenv("VMFERRY_TEST_OTHER_ABI", "1", TRUE);
    assert_no_engine(g_getenv("TEST_STUB"), "another version");
    g_unsetenv("VMFERRY_TEST_OTHER_ABI");
}

/* --- discards --- */

static StubEngine *stub;
static char *memory;
static size_t page;

static void an_engine_that_fits_is_loaded(void **state)
{
    void *library;

    (void)state;
    g_setenv("VMFERRY_QEMU_ENGINE", g_getenv("TEST_STUB"), TRUE);
    assert_null(rdma_create_event_channel());
    assert_int_equal(errno, EXDEV);
    library = dlopen(g_getenv("TEST_STUB"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(library);
    stub = dlsym(library, "stub_engine");
    assert_non_null(stub);
    page = (size_t)sysconf(_SC_PAGESIZE);
    memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
}

static void nobody_hears_of_discards_without_asking(void **state)
{
    (void)state;
    memset(memory, 1, page);
    assert_int_equal(madvise(memory, page, MADV_DONTNEED), 0);
    assert_int_equal(*memory, 0);
    assert_int_equal(stub->memory, 0);
}

static void an_engine_hears_of_memory(void **state)
{
    (void)state;
    stub->watch_discards(true);
    errno = 0;
    assert_int_equal(madvise(memory + page, 2 * page, MADV_DONTNEED), 0);
    assert_int_equal(errno, 0);
    assert_int_equal(stub->memory, 1);
    assert_ptr_equal(stub->address, memory + page);
    assert_int_equal(stub->length, 2 * page);
    assert_int_equal(stub->advice, MADV_DONTNEED);
    assert_int_equal(madvise(memory, page, MADV_FREE), 0);
    assert_int_equal(stub->memory, 2);
    /* Neither what fails nor what discards nothing. */
    assert_int_equal(madvise(memory + 1, page, MADV_DONTNEED), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(madvise(memory, page, MADV_WILLNEED), 0);
    assert_int_equal(stub->memory, 2);
}

static void discard_inside(void)
{
    assert_int_equal(madvise(memory, page, MADV_DONTNEED), 0);
}

static void an_engine_does_not_hear_of_its_own_discards(void **state)
{
    (void)state;
    stub->memory = 0;
    stub->inside = discard_inside;
    assert_int_equal(madvise(memory, page, MADV_DONTNEED), 0);
    assert_int_equal(stub->memory, 1);
    stub->inside = NULL;
}

static void an_engine_hears_of_holes(void **state)
{
    const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int (*fallocate_32)(int, int, long, long) = dlsym(RTLD_DEFAULT, "fallocate");
    int fd = memfd_create("memory", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(fallocate64(fd, 0, 0, 4 * (off64_t)page), 0);
    assert_int_equal(stub->file, 0);
    assert_int_equal(fallocate64(fd, hole, (off64_t)page, (off64_t)page), 0);
    assert_int_equal(stub->file, 1);
    assert_int_equal(stub->fd, fd);
    assert_int_equal(stub->offset, page);
    assert_int_equal(stub->length, page);
    assert_int_equal(stub->mode, hole);
    assert_int_equal(fallocate_32(fd, hole, 0, (long)page), 0);
    assert_int_equal(stub->file, 2);
    assert_int_equal(fallocate64(-1, hole, 0, 1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(stub->file, 2);
    close(fd);
}

static void an_engine_can_stop_listening(void **state)
{
    (void)state;
    stub->memory = 0;
    stub->watch_discards(false);
    assert_int_equal(madvise(memory, page, MADV_DONTNEED), 0);
    assert_int_equal(stub->memory, 0);
    munmap(memory, 4 * page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_that_is_not_there_is_an_error),
        cmocka_unit_test(an_engine_without_its_symbol_is_an_error),
        cmocka_unit_test(an_engine_of_another_version_is_an_error),
        cmocka_unit_test(an_engine_that_fits_is_loaded),
        cmocka_unit_test(nobody_hears_of_discards_without_asking),
        cmocka_unit_test(an_engine_hears_of_memory),
        cmocka_unit_test(an_engine_does_not_hear_of_its_own_discards),
        cmocka_unit_test(an_engine_hears_of_holes),
        cmocka_unit_test(an_engine_can_stop_listening),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
