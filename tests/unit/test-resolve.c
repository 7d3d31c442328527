/* SPDX-License-Identifier: BSD-2-Clause */
/* test-resolve.c -- host names for which no name server answers */

#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/resolve.h"
#include "tcp-side.h"

#include <dlfcn.h> /* after the header that defines _GNU_SOURCE */

/* --- a name server that does not answer --- */

static GMutex lock;
static GCond changed;
static bool answers;
static unsigned asked; /* look-ups that have ended or wait */
static unsigned waiting;

typedef int (*GetAddrInfo)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Takes the place of getaddrinfo(3), and calls it for what needs no name server. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **list)
{
    GetAddrInfo real = (GetAddrInfo)dlsym(RTLD_NEXT, "getaddrinfo");

    if (host && !(hints->ai_flags & AI_NUMERICHOST)) {
        g_mutex_lock(&lock);
        asked++;
        waiting++;
        g_cond_broadcast(&changed);
        while (!answers) {
            g_cond_wait(&changed, &lock);
        }
        waiting--;
        g_cond_broadcast(&changed);
        g_mutex_unlock(&lock);
        return EAI_NONAME;
    }
    return real(host, port, hints, list);
}

static int server_goes(void **state)
{
    (void)state;
    answers = false;
    asked = 0;
    return 0;
}

/* No thread may be left in a look-up when the program ends. */
static int server_comes_back(void **state)
{
    (void)state;
    g_mutex_lock(&lock);
    answers = true;
    g_cond_broadcast(&changed);
    while (waiting) {
        g_cond_wait(&changed, &lock);
    }
    g_mutex_unlock(&lock);
    return 0;
}

/* --- --- */

static void resolve__a_number_asks_nobody(void **state)
{
    const ResolveQuery query = {.host = "192.0.2.7", .port = "4444", .cancel_fd = -1};
    struct addrinfo *list = resolve_host(&query, NULL);

    (void)state;
    assert_non_null(list);
    assert_int_equal(resolve_count(list), 1);
    assert_int_equal(asked, 0);
    freeaddrinfo(list);
}

static void resolve__ends_at_the_deadline(void **state)
{
    const ResolveQuery query = {.host = "vm-target",
                                .port = "4444",
                                .deadline = g_get_monotonic_time() + 50000,
                                .cancel_fd = -1};
    GError *error = NULL;

    (void)state;
    assert_null(resolve_host(&query, &error));
    expect_error(&error, VMF_ERROR_TIMEOUT, "looking up host \"vm-target\"");
}

static void *cancel_when_asked(void *cancel)
{
    g_mutex_lock(&lock);
    while (!asked) {
        g_cond_wait(&changed, &lock);
    }
    g_mutex_unlock(&lock);
    g_cancellable_cancel(cancel);
    return NULL;
}

static void connect__a_cancel_ends_a_lookup(void **state)
{
    static const uint8_t uuid[VMF_UUID_BYTES] = "0123456789abcdef";
    g_autoptr(VmfUri) uri = side_uri("tcp:vm-target:4444,connect-timeout=600s");
    g_autoptr(GCancellable) cancel = g_cancellable_new();
    GThread *thread = g_thread_new("cancel", cancel_when_asked, cancel);
    GError *error = NULL;

    (void)state;
    assert_null(tcp_transport.connect(uri, uuid, cancel, &error));
    expect_error(&error, VMF_ERROR_CANCELLED, "looking up host");
    g_thread_join(thread);
}

static void listen__a_lookup_ends_at_the_connect_timeout(void **state)
{
    g_autoptr(VmfUri) uri = side_uri("tcp:vm-target:4444,connect-timeout=100ms");
    GError *error = NULL;

    (void)state;
    assert_null(tcp_listen(uri, &error));
    expect_error(&error, VMF_ERROR_TIMEOUT, "looking up host \"vm-target\"");
    assert_int_equal(asked, 1);
}

static void share__divides_the_time_that_is_left(void **state)
{
    const gint64 now = g_get_monotonic_time();

    (void)state;
    /* Each gets at most a third, the last one all, and none a time in the past. */
    assert_true(resolve_share(now + 3 * G_TIME_SPAN_HOUR, 3) >= now + G_TIME_SPAN_HOUR);
    assert_true(resolve_share(now + 3 * G_TIME_SPAN_HOUR, 3) < now + 2 * G_TIME_SPAN_HOUR);
    assert_true(resolve_share(now + G_TIME_SPAN_HOUR, 1) >= now + G_TIME_SPAN_HOUR - 1);
    assert_true(resolve_share(now - 1, 2) >= now);
}

int main(void)
{
#define SLOW(name) cmocka_unit_test_setup_teardown(name, server_goes, server_comes_back)
    const struct CMUnitTest tests[] = {
        SLOW(resolve__a_number_asks_nobody),
        SLOW(resolve__ends_at_the_deadline),
        SLOW(connect__a_cancel_ends_a_lookup),
        SLOW(listen__a_lookup_ends_at_the_connect_timeout),
        cmocka_unit_test(share__divides_the_time_that_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
