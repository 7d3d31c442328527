/* SPDX-License-Identifier: BSD-2-Clause */
/* test-tcp-connect.c -- connecting to addresses, and listening on them */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>

#include "tcp-rig.h"

/* --- connecting --- */

static void refuse_connect(const char *text, GCancellable *cancel, int code, const char *says)
{
    g_autoptr(VmfUri) uri = side_uri("%s", text);
    const VmfTransport *transport = vmf_uri_path(uri) ? &unix_transport : &tcp_transport;
    GError *error = NULL;

    assert_null(transport->connect(uri, our_uuid, cancel, &error));
    expect_error(&error, code, says);
    assert_null(transport->connect(uri, our_uuid, cancel, NULL)); /* nothing was said */
}

static void connect__failures_are_told_apart(void **state)
{
    g_autoptr(GCancellable) cancelled = g_cancellable_new();
    g_autofree char *closed = NULL, *full = NULL;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), in_the_way;

    (void)state;
    g_cancellable_cancel(cancelled);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    closed = g_strdup_printf("tcp:127.0.0.1:%u", ntohs(address.sin_port));
    refuse_connect(closed, NULL, VMF_ERROR_REFUSED, "127.0.0.1 port");
    /* A listener that accepts nobody, so that later connections hang. */
    assert_int_equal(listen(fd, 0), 0);
    in_the_way = rig_dial(ntohs(address.sin_port));
    full = g_strdup_printf("%s,connect-timeout=150ms", closed);
    refuse_connect(full, NULL, VMF_ERROR_TIMEOUT, "127.0.0.1 port");
    refuse_connect(closed, cancelled, VMF_ERROR_CANCELLED, "cancelled");
    /* A name that must be looked up. */
    refuse_connect("tcp:vmferry.invalid:1", cancelled, VMF_ERROR_CANCELLED, "vmferry.invalid");
    refuse_connect("unix:/nowhere/at/all", NULL, VMF_ERROR_CONNECT, "/nowhere/at/all");
    close(in_the_way);
    close(fd);
}

/* "localhost" may have several addresses, of which only one listens. */
static void connect__tries_every_address_of_a_name(void **state)
{
    g_autoptr(VmfUri) uri = NULL;
    VmfConn *source;
    Accepting accepting;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    uri = side_uri("tcp:localhost:%u," PATIENT, rig.port);
    accept_start(&accepting, &rig);
    source = tcp_transport.connect(uri, our_uuid, NULL, NULL);
    assert_non_null(source);
    control_say(source, "greeting");
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    rig_clear(&rig);
}

/* --- listening --- */

static void listen__on_every_address(void **state)
{
    g_autoptr(VmfUri) uri = side_uri("tcp::0," PATIENT);
    g_autofree char *address = NULL;
    Rig rig = {.listener = tcp_listen(uri, NULL), .cancel = g_cancellable_new()};
    Accepting accepting;
    VmfConn *source;

    (void)state;
    assert_non_null(rig.listener);
    address = tcp_listener_address(rig.listener);
    assert_true(g_str_has_prefix(address, "tcp::"));
    rig.uri = side_uri("tcp:127.0.0.1:%s," PATIENT, address + strlen("tcp::"));
    accept_start(&accepting, &rig);
    source = rig_connect(&rig);
    tcp_close(accept_finish(&accepting));
    tcp_close(source);
    rig_clear(&rig);
}

static void listen__failures_are_errors(void **state)
{
    g_autoptr(VmfUri) taken = NULL;
    g_autoptr(VmfUri) nowhere = side_uri("unix:/nowhere/at/all");
    GError *error = NULL;
    Rig rig;

    (void)state;
    rig_init(&rig, PATIENT);
    taken = side_uri("tcp:127.0.0.1:%u", rig.port);
    assert_null(tcp_listen(taken, &error));
    expect_error(&error, VMF_ERROR_CONNECT, "127.0.0.1 port");
    assert_null(tcp_listen(nowhere, &error));
    expect_error(&error, VMF_ERROR_CONNECT, "unix:/nowhere/at/all");
    rig_clear(&rig);
}

static void listen__replaces_stale_unix_sockets_alone(void **state)
{
    g_autofree char *directory = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(directory, "s", NULL);
    g_autoptr(VmfUri) uri = side_uri("unix:%s", path);
    VmfTransportListener *listener;
    GError *error = NULL;
    struct stat status;

    (void)state;
    /* A file that is not a socket is left alone. */
    assert_true(g_file_set_contents(path, "precious", -1, NULL));
    assert_null(tcp_listen(uri, &error));
    expect_error(&error, VMF_ERROR_CONNECT, path);
    g_unlink(path);
    listener = tcp_listen(uri, NULL);
    assert_non_null(listener);
    assert_null(tcp_listen(uri, &error)); /* in use */
    expect_error(&error, VMF_ERROR_CONNECT, path);
    /*
     * Left over from a process that died: the file is renamed, and has its name again when nobody
     * listens.
     */
    {
        g_autofree char *other = g_strconcat(path, ".old", NULL);

        assert_int_equal(link(path, other), 0);
        tcp_listener_free(listener);
        assert_int_equal(stat(path, &status), -1);
        assert_int_equal(rename(other, path), 0);
    }
    listener = tcp_listen(uri, NULL);
    assert_non_null(listener);
    tcp_listener_free(listener);
    assert_int_equal(stat(path, &status), -1);
    g_rmdir(directory);
}

/* The process that listens on that path may be busy with a migration, and accept nobody. */
static void listen__socket_with_a_full_backlog_is_not_stale(void **state)
{
    g_autofree char *directory = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(directory, "s", NULL);
    g_autoptr(VmfUri) uri = side_uri("unix:%s", path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int busy = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), callers[8];
    unsigned called = 0;
    GError *error = NULL;

    (void)state;
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    assert_int_equal(bind(busy, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(busy, 1), 0);
    do {
        assert_true(called < G_N_ELEMENTS(callers));
        callers[called] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    } while (connect(callers[called++], (struct sockaddr *)&address, sizeof(address)) == 0);
    assert_int_equal(errno, EAGAIN);
    alarm(30); /* otherwise it would wait for ever */
    assert_null(tcp_listen(uri, &error));
    alarm(0);
    expect_error(&error, VMF_ERROR_CONNECT, path);
    while (called) {
        close(callers[--called]);
    }
    close(busy);
    g_unlink(path);
    g_rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connect__failures_are_told_apart),
        cmocka_unit_test(connect__tries_every_address_of_a_name),
        cmocka_unit_test(listen__on_every_address),
        cmocka_unit_test(listen__failures_are_errors),
        cmocka_unit_test(listen__replaces_stale_unix_sockets_alone),
        cmocka_unit_test(listen__socket_with_a_full_backlog_is_not_stale),
    };

    return cmocka_run_group_tests_name("tcp-connect", tests, NULL, NULL);
}
