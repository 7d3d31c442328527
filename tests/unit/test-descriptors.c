/* SPDX-License-Identifier: BSD-2-Clause */
/* test-descriptors.c -- a process that runs out of descriptors gets errors, and goes on */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <sys/resource.h>
#include <vmferry/vmferry.h>

/* More than a session needs. */
#define MOST 64

/* From here on only so many more descriptors can be opened. */
static void leave(rlim_t descriptors)
{
    struct rlimit limit;
    int lowest = dup(STDERR_FILENO);

    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)lowest + descriptors;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void connect__without_descriptors_is_an_error(void **state)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse("unix:/nobody/listens/here", NULL);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    struct rlimit before;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (unsigned left = 0; left < MOST; left++) {
        g_autoptr(GError) error = NULL;

        leave(left);
        assert_null(vmf_session_connect(uri, blocks, NULL, &error));
        assert_non_null(error);
        if (left == 0) {
            assert_non_null(strstr(error->message, "Too many open files"));
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    }
}

static void *give_up(void *cancellable)
{
    g_cancellable_cancel(cancellable);
    return NULL;
}

static void accept__without_descriptors_is_an_error(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("vmferry-descriptors-XXXXXX", NULL);
    g_autofree char *text = g_strdup_printf("unix:%s/socket", folder);
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, NULL);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    VmfListener *listener = vmf_listener_new(uri, NULL);
    struct rlimit before;

    (void)state;
    assert_non_null(listener);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (unsigned left = 0; left < MOST; left++) {
        g_autoptr(GCancellable) cancellable = g_cancellable_new();
        g_autoptr(GError) error = NULL;
        GThread *thread;

        thread = g_thread_new("give-up", give_up, cancellable);
        leave(left);
        assert_null(vmf_session_accept(listener, blocks, cancellable, &error));
        assert_non_null(error);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        g_thread_join(thread);
    }
    vmf_listener_free(listener);
    assert_int_equal(g_rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connect__without_descriptors_is_an_error),
        cmocka_unit_test(accept__without_descriptors_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
