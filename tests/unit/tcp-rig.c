/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-rig.c -- a listener of tcp: and clients of every kind, for its tests */

#include "tcp-rig.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

const uint8_t our_uuid[VMF_UUID_BYTES] = "0123456789abcdef";

void rig_init(Rig *rig, const char *options)
{
    g_autoptr(VmfUri) uri = side_uri("tcp:127.0.0.1:0,%s", options);
    g_autofree char *address = NULL;

    rig->listener = tcp_listen(uri, NULL);
    assert_non_null(rig->listener);
    address = tcp_listener_address(rig->listener);
    assert_true(g_str_has_prefix(address, "tcp:127.0.0.1:"));
    rig->uri = side_uri("%s,%s", address, options);
    rig->port = (uint16_t)strtoul(vmf_uri_port(rig->uri), NULL, 10);
    assert_int_not_equal(rig->port, 0);
    rig->cancel = g_cancellable_new();
}

void rig_clear(Rig *rig)
{
    tcp_listener_free(rig->listener);
    vmf_uri_unref(rig->uri);
    g_object_unref(rig->cancel);
}

int rig_dial(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Connects, and sends the first `size' bytes of a preamble. */
int rig_dial_as(uint16_t port, TcpKind kind, unsigned channel, const uint8_t *uuid, size_t size)
{
    TcpPreamble preamble = {.kind = kind, .channel = channel};
    uint8_t bytes[TCP_PREAMBLE_BYTES];
    int fd = rig_dial(port);

    memcpy(preamble.uuid, uuid, VMF_UUID_BYTES);
    tcp_preamble_encode(&preamble, bytes);
    peer_send(fd, bytes, size);
    return fd;
}

int rig_dial_channel(const Rig *rig, unsigned channel, const uint8_t *uuid)
{
    return rig_dial_as(rig->port, TCP_KIND_CHANNEL, channel, uuid, TCP_PREAMBLE_BYTES);
}

void control_say(VmfConn *conn, const char *text)
{
    const struct iovec iov = {.iov_base = (void *)text, .iov_len = strlen(text)};

    assert_int_equal(tcp_control_send(conn, &iov, 1, NULL), VMF_CONTROL_DONE);
}

void expect_control_said(VmfConn *conn, const char *text)
{
    const uint8_t *message;
    VmfControlResult result;
    size_t size;

    do {
        assert_true(tcp_control_wait(conn, -1, false, 20000, NULL));
        result = tcp_control_receive(conn, &message, &size, NULL);
    } while (result == VMF_CONTROL_AGAIN);
    assert_int_equal(result, VMF_CONTROL_DONE);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(message, text, size);
}

static void *accept_main(void *opaque)
{
    Accepting *a = opaque;

    a->conn = tcp_accept(a->rig->listener, a->rig->cancel, &a->error);
    return NULL;
}

void accept_start(Accepting *a, Rig *rig)
{
    *a = (Accepting){.rig = rig};
    a->thread = g_thread_new("accept", accept_main, a);
}

VmfConn *accept_finish(Accepting *a)
{
    g_thread_join(a->thread);
    if (!a->conn) {
        fail_msg("%s", a->error->message);
    }
    assert_null(a->error);
    expect_control_said(a->conn, "greeting");
    return a->conn;
}

VmfConn *rig_connect(const Rig *rig)
{
    g_autoptr(GError) error = NULL;
    VmfConn *conn = tcp_transport.connect(rig->uri, our_uuid, NULL, &error);

    if (!conn) {
        fail_msg("%s", error->message);
    }
    control_say(conn, "greeting"); /* as every source does at once */
    return conn;
}

/* Asserts that two control connections are the ends of one. */
void expect_joined(VmfConn *a, VmfConn *b)
{
    control_say(a, "hello");
    expect_control_said(b, "hello");
}
