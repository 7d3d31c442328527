/* SPDX-License-Identifier: BSD-2-Clause */
/* test-false-cm.c -- tests of a false RDMA device's addresses, ids and events */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/test-filter.h"
#include "verbs-program.h"

static int set_up(void **state)
{
    *state = loopback_new();
    return 0;
}

static int tear_down(void **state)
{
    loopback_free(*state);
    return 0;
}

/* Runs a function of a Program in a thread of its own. */
static GThread *in_thread(GThreadFunc function, void *data)
{
    return g_thread_new("test", function, data);
}

static gpointer accept_one(gpointer data)
{
    program_accept(data);
    return NULL;
}

/* --- addresses --- */

/* What the backend would be asked for, of a resolved address. */
static void assert_names(Loopback *loopback, const char *node, const char *service, int family,
                         const char *digits)
{
    struct rdma_event_channel *channel = false_create_event_channel(loopback->device);
    struct rdma_addrinfo *info;
    struct rdma_cm_id *id;
    char text[INET6_ADDRSTRLEN];
    const void *address;

    assert_int_equal(false_getaddrinfo(loopback->device, node, service, NULL, &info), 0);
    assert_true(false_addrinfo_owned(loopback->device, info));
    assert_null(info->ai_next);
    assert_int_equal(info->ai_family, family);
    assert_int_equal(info->ai_dst_addr->sa_family, family);
    address = family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)info->ai_dst_addr)->sin6_addr
                                 : (void *)&((struct sockaddr_in *)info->ai_dst_addr)->sin_addr;
    assert_string_equal(inet_ntop(family, address, text, sizeof(text)), digits);

    assert_int_equal(false_create_id(channel, &id, NULL, RDMA_PS_TCP), 0);
    assert_null(id->verbs);
    assert_int_equal(false_resolve_addr(id, NULL, info->ai_dst_addr, 1000), 0);
    false_freeaddrinfo(loopback->device, info);
    assert_false(false_addrinfo_owned(loopback->device, info));
    assert_non_null(id->verbs);
    assert_string_equal(false_id_node(id), node);
    assert_string_equal(false_id_service(id), service);
    assert_int_equal(ntohs(false_get_dst_port(id)), atoi(service));
    assert_int_equal(false_destroy_id(id), 0);
    false_destroy_event_channel(channel);
}

static void the_text_of_an_address_reaches_the_backend(void **state)
{
    assert_names(*state, "192.0.2.7", "4444", AF_INET, "192.0.2.7");
    assert_names(*state, "2001:db8::7", "1", AF_INET6, "2001:db8::7");
    assert_names(*state, "fe80::1%lo", "65535", AF_INET6, "fe80::1");
    assert_names(*state, "host.example", "4444", AF_INET, "127.0.0.1");
    assert_names(*state, "host.example", "service", AF_INET, "127.0.0.1");
}

static void an_address_without_a_list_is_shown_in_digits(void **state)
{
    Loopback *loopback = *state;
    struct rdma_event_channel *channel = false_create_event_channel(loopback->device);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(77)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(78)};
    struct sockaddr other = {.sa_family = AF_UNIX};
    struct rdma_cm_id *id;

    v4.sin_addr.s_addr = htonl(0x0a000001);
    v6.sin6_addr.s6_addr[15] = 1;
    assert_int_equal(false_create_id(channel, &id, state, RDMA_PS_TCP), 0);
    assert_ptr_equal(id->context, state);
    assert_int_equal(false_bind_addr(id, &other), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(false_bind_addr(id, (struct sockaddr *)&v4), 0);
    assert_string_equal(false_id_node(id), "10.0.0.1");
    assert_string_equal(false_id_service(id), "77");
    assert_int_equal(ntohs(false_get_src_port(id)), 77);
    assert_int_equal(ntohs(false_get_dst_port(id)), 0);
    assert_int_equal(false_resolve_addr(id, NULL, (struct sockaddr *)&v6, 1000), 0);
    assert_string_equal(false_id_node(id), "::1");
    assert_string_equal(false_id_service(id), "78");
    assert_int_equal(false_destroy_id(id), 0);
    false_destroy_event_channel(channel);
}

static void a_passive_list_has_a_source_address(void **state)
{
    Loopback *loopback = *state;
    struct rdma_addrinfo hints = {.ai_flags = RAI_PASSIVE}, *info;

    assert_int_equal(false_getaddrinfo(loopback->device, NULL, "5", &hints, &info), 0);
    assert_null(info->ai_dst_addr);
    assert_int_equal(((struct sockaddr_in *)info->ai_src_addr)->sin_addr.s_addr, INADDR_ANY);
    false_freeaddrinfo(loopback->device, info);
    assert_int_equal(false_getaddrinfo(loopback->device, NULL, "5", NULL, &info), -1);
    assert_int_equal(errno, EINVAL);
}

/* --- connections --- */

static void a_migration_runs_over_two_connections(void **state)
{
    Program *source = program_new(*state), *back = program_new(*state);
    Program *destination = program_new(*state), *back_end = program_new(*state);
    struct rdma_cm_event *event;
    GThread *thread;

    program_listen(destination, "::", "4444");
    assert_false(program_readable(destination->channel->fd));
    thread = in_thread(accept_one, destination);
    program_resolve(source, "2001:db8::1", "4444");
    event = program_connect(source, "question", 9);
    assert_int_equal(event->event, RDMA_CM_EVENT_ESTABLISHED);
    assert_string_equal(event->param.conn.private_data, "answer");
    assert_int_equal(event->param.conn.private_data_len, 7);
    assert_int_equal(false_ack_cm_event(event), 0);
    g_thread_join(thread);
    assert_ptr_equal(destination->id->verbs, source->id->verbs);

    /* The way back uses the listening id and its channel, too. */
    back_end->listen_id = destination->listen_id;
    back_end->channel = destination->channel;
    back_end->shares_channel = true;
    thread = in_thread(accept_one, back_end);
    program_resolve(back, "host.example", "4444");
    event = program_connect(back, "question", 9);
    assert_int_equal(event->event, RDMA_CM_EVENT_ESTABLISHED);
    assert_int_equal(false_ack_cm_event(event), 0);
    g_thread_join(thread);

    program_send(source, "hello");
    assert_int_equal(program_await(destination, PROGRAM_RECV), 6);
    assert_string_equal(destination->buffers[0], "hello");
    program_send(back_end, "welcome");
    assert_int_equal(program_await(back, PROGRAM_RECV), 8);
    assert_string_equal(back->buffers[0], "welcome");

    assert_int_equal(false_disconnect(source->id), 0);
    program_free(source);
    program_expect(destination, RDMA_CM_EVENT_DISCONNECTED);
    program_free(back);
    assert_int_equal(false_disconnect(destination->id), 0);
    program_free(destination);
    /* QEMU ends the way back after the channel that it shares. */
    assert_true(false_channel_owned(((Loopback *)*state)->device, back_end->id->channel));
    assert_int_equal(false_disconnect(back_end->id), 0);
    program_free(back_end);
}

static void a_rejection_brings_its_data(void **state)
{
    Program *source = program_new(*state), *destination = program_new(*state);
    struct rdma_cm_event *request, *event;

    program_listen(destination, "0.0.0.0", "1");
    program_resolve(source, "192.0.2.1", "1");
    program_post_receive(source, 0);
    assert_int_equal(false_connect(source->id, NULL), 0);
    request = program_event(destination, RDMA_CM_EVENT_CONNECT_REQUEST);
    /* A program that copies what it expects finds zeros. */
    assert_int_equal(request->param.conn.private_data_len, 0);
    assert_int_equal(*(const uint64_t *)request->param.conn.private_data, 0);
    assert_int_equal(false_reject(request->id, "no", 3), 0);
    assert_int_equal(false_accept(request->id, NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(false_destroy_id(request->id), 0);
    assert_int_equal(false_ack_cm_event(request), 0);

    event = program_event(source, RDMA_CM_EVENT_REJECTED);
    assert_int_equal(event->status, 28);
    assert_string_equal(event->param.conn.private_data, "no");
    assert_int_equal(false_ack_cm_event(event), 0);
    assert_int_equal(false_disconnect(source->id), -1);
    assert_int_equal(errno, EINVAL);
    program_free(source);
    program_free(destination);
}

static void a_connection_to_nobody_fails(void **state)
{
    Program *source = program_new(*state), *other = program_new(*state);
    struct rdma_cm_event *event;

    program_resolve(source, "nowhere", "1");
    event = program_connect(source, "question", 9);
    assert_int_equal(event->event, RDMA_CM_EVENT_UNREACHABLE);
    assert_int_equal(event->status, -ETIMEDOUT);
    assert_int_equal(false_ack_cm_event(event), 0);
    program_free(source);

    program_resolve(other, "192.0.2.1", "1");
    event = program_connect(other, "question", 9);
    assert_int_equal(event->event, RDMA_CM_EVENT_REJECTED);
    assert_int_equal(false_ack_cm_event(event), 0);
    program_free(other);
}

static void calls_in_a_wrong_state_fail(void **state)
{
    Loopback *loopback = *state;
    Program *source = program_new(loopback);
    uint8_t data[UINT8_MAX] = {0};
    struct rdma_conn_param param = {.private_data = data, .private_data_len = 57};
    struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC};

    assert_int_equal(false_ack_cm_event(NULL), -1);
    assert_int_equal(errno, EINVAL);
    program_resolve(source, "192.0.2.1", "1");
    assert_int_equal(false_create_qp(source->id, source->pd, &attr), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(false_resolve_route(source->id, 1), -1);
    assert_int_equal(false_bind_addr(source->id, &source->id->route.addr.dst_addr), -1);
    assert_int_equal(false_listen(source->id, 1), -1);
    assert_int_equal(false_accept(source->id, NULL), -1);
    assert_int_equal(false_reject(source->id, NULL, 0), -1);
    assert_int_equal(false_disconnect(source->id), -1);
    assert_int_equal(false_connect(source->id, &param), -1);
    assert_int_equal(errno, EINVAL);
    /* What the backend refuses can be tried again. */
    loopback->connect_error = ENETDOWN;
    assert_int_equal(false_connect(source->id, NULL), -1);
    assert_int_equal(errno, ENETDOWN);
    loopback->connect_error = 0;
    assert_int_equal(false_connect(source->id, NULL), 0);
    assert_int_equal(false_connect(source->id, NULL), -1);
    assert_int_equal(errno, EINVAL);
    program_free(source);
}

static void a_backend_without_functions_connects_nobody(void **state)
{
    static const FalseDeviceOps none = {.size = sizeof(size_t)};
    Loopback *loopback = *state, bare = {.device = false_device_new("bare", &none, state)};
    Program *source = program_new(&bare);

    assert_false(false_channel_owned(loopback->device, source->channel));
    program_resolve(source, "192.0.2.1", "1");
    assert_ptr_equal(false_device_opaque(source->id->verbs), state);
    assert_int_equal(false_connect(source->id, NULL), -1);
    assert_int_equal(errno, EOPNOTSUPP);
    program_free(source);
    false_device_free(bare.device);
}

/* --- events --- */

static void a_channel_is_readable_while_events_wait(void **state)
{
    Program *source = program_new(*state);
    struct rdma_cm_event *event;
    int fd;

    program_resolve(source, "192.0.2.1", "1");
    fd = source->channel->fd;
    assert_false(program_readable(fd));
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(false_get_cm_event(source->channel, &event), -1);
    assert_int_equal(errno, EAGAIN);

    false_id_device_removed(source->id);
    false_id_device_removed(source->id);
    assert_true(program_readable(fd));
    program_expect(source, RDMA_CM_EVENT_DEVICE_REMOVAL);
    assert_true(program_readable(fd));
    program_expect(source, RDMA_CM_EVENT_DEVICE_REMOVAL);
    assert_false(program_readable(fd));

    /* What nobody has read ends with its id. */
    false_id_device_removed(source->id);
    program_free(source);
}

static void events_of_one_id_outlive_another(void **state)
{
    Loopback *loopback = *state;
    struct rdma_event_channel *channel = false_create_event_channel(loopback->device);
    struct rdma_cm_id *one, *other;
    struct rdma_cm_event *event;

    assert_int_equal(false_create_id(channel, &one, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(false_create_id(channel, &other, NULL, RDMA_PS_TCP), 0);
    false_id_device_removed(one);
    false_id_device_removed(other);
    assert_int_equal(false_destroy_id(one), 0);
    assert_true(program_readable(channel->fd));
    assert_int_equal(false_get_cm_event(channel, &event), 0);
    assert_ptr_equal(event->id, other);
    assert_false(program_readable(channel->fd));
    assert_int_equal(false_ack_cm_event(event), 0);
    false_id_device_removed(other);
    assert_int_equal(false_destroy_id(other), 0);
    assert_false(program_readable(channel->fd));
    false_destroy_event_channel(channel);
    assert_int_equal(loopback->ids_destroyed, 2);
}

static gpointer remove_later(gpointer id)
{
    g_usleep(20000);
    false_id_device_removed(id);
    return NULL;
}

static void an_event_wakes_whoever_waits(void **state)
{
    Program *source = program_new(*state);
    GThread *thread;

    program_resolve(source, "192.0.2.1", "1");
    thread = in_thread(remove_later, source->id);
    program_expect(source, RDMA_CM_EVENT_DEVICE_REMOVAL);
    g_thread_join(thread);
    program_free(source);
}

static gint acknowledged;

static gpointer acknowledge_later(gpointer event)
{
    g_usleep(20000);
    g_atomic_int_set(&acknowledged, 1);
    assert_int_equal(false_ack_cm_event(event), 0);
    return NULL;
}

static void the_end_of_an_id_waits_for_acknowledgements(void **state)
{
    Program *source = program_new(*state);
    GThread *thread;

    program_resolve(source, "192.0.2.1", "1");
    false_id_device_removed(source->id);
    g_atomic_int_set(&acknowledged, 0);
    thread = in_thread(acknowledge_later, program_event(source, RDMA_CM_EVENT_DEVICE_REMOVAL));
    program_free(source);
    assert_int_equal(g_atomic_int_get(&acknowledged), 1);
    g_thread_join(thread);
}

static void requests_that_nobody_reads_end_with_the_listener(void **state)
{
    Loopback *loopback = *state;
    Program *sources[2], *destination = program_new(loopback);

    program_listen(destination, "0.0.0.0", "1");
    for (unsigned i = 0; i < 2; i++) {
        sources[i] = program_new(loopback);
        program_resolve(sources[i], "192.0.2.1", "1");
        program_post_receive(sources[i], 0);
        assert_int_equal(false_connect(sources[i]->id, NULL), 0);
    }
    assert_int_equal(false_destroy_id(destination->listen_id), 0);
    assert_int_equal(loopback->ids_destroyed, 3);
    destination->listen_id = NULL;
    program_free(destination);
    program_free(sources[0]);
    program_free(sources[1]);
}

static void requests_that_nobody_reads_end_with_the_channel(void **state)
{
    Loopback *loopback = *state;
    Program *source = program_new(loopback), *destination = program_new(loopback);
    struct rdma_cm_id *listen_id;

    program_listen(destination, "0.0.0.0", "1");
    program_resolve(source, "192.0.2.1", "1");
    program_post_receive(source, 0);
    assert_int_equal(false_connect(source->id, NULL), 0);
    listen_id = destination->listen_id;
    destination->listen_id = NULL;
    program_free(destination);
    assert_int_equal(loopback->ids_destroyed, 1);
    /* Nobody can read what comes now. */
    assert_null(false_id_request(listen_id, NULL, NULL, NULL));
    false_id_device_removed(listen_id);
    assert_int_equal(false_destroy_id(listen_id), 0);
    program_free(source);
}

static void late_words_of_a_backend_are_dropped(void **state)
{
    Program *source = program_new(*state);

    program_resolve(source, "192.0.2.1", "1");
    false_id_established(source->id, NULL);
    false_id_disconnected(source->id);
    false_id_failed(source->id, RDMA_CM_EVENT_REJECTED, 0, NULL, 0);
    assert_false(program_readable(source->channel->fd));
    program_free(source);
}

/* --- the device --- */

static void the_device_describes_itself(void **state)
{
    Program *source = program_new(*state);
    struct ibv_context *verbs;
    struct ibv_device_attr attr;
    struct ibv_port_attr port;
    struct ibv_sge sge = {0};

    program_resolve(source, "192.0.2.1", "1");
    verbs = source->id->verbs;
    assert_true(false_context_owned(verbs));
    assert_false(false_context_owned(NULL));
    assert_string_equal(verbs->device->name, "loopback");
    assert_string_equal(ibv_get_device_name(verbs->device), "loopback");
    assert_int_equal(false_query_device(verbs, &attr), 0);
    assert_int_equal(attr.phys_port_cnt, 1);
    memset(&port, 0xff, sizeof(port));
    assert_int_equal(false_query_port(verbs, 1, &port), 0);
    assert_int_equal(port.link_layer, IBV_LINK_LAYER_INFINIBAND);
    assert_int_equal(port.state, IBV_PORT_ACTIVE);
    /* A caller of an older header has no room for the newest member. */
    assert_int_equal(port.port_cap_flags2, 0xffff);
    assert_int_equal(false_query_port(verbs, 2, &port), EINVAL);
    assert_int_equal(ibv_advise_mr(source->pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1),
                     EOPNOTSUPP);
    assert_null(verbs_get_ctx_op(verbs, query_device_ex));
    program_free(source);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_text_of_an_address_reaches_the_backend),
        TEST(an_address_without_a_list_is_shown_in_digits),
        TEST(a_passive_list_has_a_source_address),
        TEST(a_migration_runs_over_two_connections),
        TEST(a_rejection_brings_its_data),
        TEST(a_connection_to_nobody_fails),
        TEST(calls_in_a_wrong_state_fail),
        TEST(a_backend_without_functions_connects_nobody),
        TEST(a_channel_is_readable_while_events_wait),
        TEST(events_of_one_id_outlive_another),
        TEST(an_event_wakes_whoever_waits),
        TEST(the_end_of_an_id_waits_for_acknowledgements),
        TEST(requests_that_nobody_reads_end_with_the_listener),
        TEST(requests_that_nobody_reads_end_with_the_channel),
        TEST(late_words_of_a_backend_are_dropped),
        TEST(the_device_describes_itself),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
