/* SPDX-License-Identifier: BSD-2-Clause */
/* test-preload.c -- tests of a program with libvmferry-qemu.so, linked as QEMU is */

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib.h>
#include <cmocka.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "preload-helper.h"
#include "preload-process.h"

/* The tests run in this order, because what was loaded stays. */

static void *helper(const char *name)
{
    static void *library;
    void *function;

    if (!library) {
        library = dlopen(g_getenv("TEST_HELPER"), RTLD_NOW | RTLD_LOCAL);
        assert_non_null(library);
    }
    function = dlsym(library, name);
    assert_non_null(function);
    return function;
}

/* --- before the first call --- */

static void only_the_small_library_is_there(void **state)
{
    (void)state;
    assert_true(process_has_mapped("/libvmferry-qemu.so"));
    assert_false(process_has_mapped("/libvmferry-qemu-engine.so"));
    assert_false(process_has_mapped("/libvmferry.so"));
}

/* Prints nothing if no variable of the environment names the library. */
static void a_child_does_not_get_the_library(void **state)
{
    g_autofree char *output = NULL;
    const char *preload = getenv("LD_PRELOAD");
    int status;

    (void)state;
    assert_string_equal(preload ? preload : "", g_getenv("TEST_OTHERS"));
    assert_true(g_spawn_command_line_sync(
        "sh -c 'grep libvmferry-qemu.so /proc/self/maps; env -u TEST_SHIM'", &output, NULL, &status,
        NULL));
    assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    assert_null(strstr(output, "/libvmferry-qemu.so"));
}

static void a_program_that_starts_another_one_keeps_the_library(void **state)
{
    g_autofree char *shim = g_strdup_printf("LD_PRELOAD=%s", g_getenv("TEST_SHIM"));
    const char *words[] = {"env", shim, "sh", "-c", "env", NULL};
    g_autofree char *output = NULL;

    (void)state;
    assert_true(g_spawn_sync(NULL, (char **)words, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output,
                             NULL, NULL, NULL));
    assert_non_null(strstr(output, shim));
}

static void calls_without_an_object_reach_the_real_library(void **state)
{
    struct ibv_device **devices;
    int count = -1;

    (void)state;
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "ibv_get_device_list"),
                     dlvsym(RTLD_DEFAULT, "ibv_get_device_list", "IBVERBS_1.1"));
    devices = ibv_get_device_list(&count);
    if (devices) {
        assert_true(count >= 0);
        ibv_free_device_list(devices);
    }
    assert_string_equal(rdma_event_str(RDMA_CM_EVENT_REJECTED), "RDMA_CM_EVENT_REJECTED");
    rdma_freeaddrinfo(NULL);
    assert_false(process_has_mapped("/libvmferry-qemu-engine.so"));
}

/* Of a name that has several versions dlsym() gives the newest, which is what a program gets. */
static void the_newest_version_is_the_real_one(void **state)
{
    void *library = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);

    (void)state;
    assert_non_null(library);
    assert_ptr_equal(dlsym(library, "ibv_create_cq"),
                     dlvsym(library, "ibv_create_cq", "IBVERBS_1.1"));
    assert_ptr_not_equal(dlsym(library, "ibv_create_cq"),
                         dlvsym(library, "ibv_create_cq", "IBVERBS_1.0"));
    dlclose(library);
}

/* On a host without a device the real calls fail. Elsewhere they open the device's file. */
static void assert_helper_is_real(void)
{
    struct rdma_event_channel *(*create)(void) = helper("helper_create_event_channel");
    struct rdma_event_channel *channel = create();

    if (channel) {
        assert_false(process_fd_is_event(channel->fd));
        rdma_destroy_event_channel(channel);
    }
}

static void calls_of_a_library_are_real(void **state)
{
    (void)state;
    assert_helper_is_real();
    assert_false(process_has_mapped("/libvmferry-qemu-engine.so"));
}

/* --- with the engine --- */

static void the_main_program_gets_a_false_device(void **state)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();

    (void)state;
    assert_non_null(channel);
    assert_true(process_has_mapped("/libvmferry-qemu-engine.so"));
    assert_true(process_fd_is_event(channel->fd));
    rdma_destroy_event_channel(channel);
}

static void calls_of_a_library_stay_real(void **state)
{
    int (*get)(const char *, struct rdma_addrinfo **) = helper("helper_getaddrinfo");
    struct rdma_addrinfo *info;

    (void)state;
    assert_helper_is_real();
    /* Only the false device takes a name without asking anybody. */
    assert_int_equal(rdma_getaddrinfo("no-such-name.invalid", "1", NULL, &info), 0);
    rdma_freeaddrinfo(info);
    assert_int_not_equal(get("no-such-name.invalid", &info), 0);
}

/* The program's way up to the connection, as QEMU's source goes. */
static void a_migration_reaches_the_engine(void **state)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();
    struct ibv_qp_init_attr attr = {.cap = {.max_send_wr = 1, .max_recv_wr = 1},
                                    .qp_type = IBV_QPT_RC};
    struct ibv_device_attr_ex extended;
    struct ibv_port_attr port;
    struct rdma_addrinfo *info;
    struct rdma_cm_event *event;
    struct ibv_comp_channel *completions;
    g_autofree char *errors = NULL;
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    int access = IBV_ACCESS_LOCAL_WRITE;
    const uint32_t capabilities[] = {GUINT32_TO_BE(1), 0}; /* what QEMU says of itself */
    struct rdma_conn_param param = {.private_data = capabilities,
                                    .private_data_len = sizeof(capabilities)};

    (void)state;
    assert_int_equal(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_getaddrinfo("127.0.0.1", "4444", NULL, &info), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, info->ai_dst_addr, 1000), 0);
    rdma_freeaddrinfo(info);
    assert_int_equal(rdma_get_cm_event(channel, &event), 0);
    assert_int_equal(event->event, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_ack_cm_event(event), 0);
    assert_int_equal(rdma_resolve_route(id, 1000), 0);
    assert_int_equal(rdma_get_cm_event(channel, &event), 0);
    assert_int_equal(rdma_ack_cm_event(event), 0);

    assert_string_equal(id->verbs->device->name, "vmferry");
    assert_int_equal(ibv_query_port(id->verbs, 1, &port), 0);
    assert_int_equal(port.link_layer, IBV_LINK_LAYER_INFINIBAND);
    assert_int_equal(ibv_query_device_ex(id->verbs, NULL, &extended), 0);
    assert_int_equal(extended.odp_caps.general_caps, 0);

    pd = ibv_alloc_pd(id->verbs);
    completions = ibv_create_comp_channel(id->verbs);
    attr.send_cq = attr.recv_cq = ibv_create_cq(id->verbs, 3, NULL, completions, 0);
    assert_int_equal(rdma_create_qp(id, pd, &attr), 0);
    mr = ibv_reg_mr(pd, &port, sizeof(port), access);
    assert_non_null(mr);

    process_catch_errors();
    assert_int_equal(rdma_connect(id, &param), 0);
    assert_int_equal(rdma_get_cm_event(channel, &event), 0); /* without an RDMA device */
    errors = process_stop_catching();
    assert_non_null(strstr(errors, "vmferry: cannot connect to 127.0.0.1 port 4444: "));
    assert_int_equal(event->event, RDMA_CM_EVENT_REJECTED);
    assert_int_equal(rdma_ack_cm_event(event), 0);
    assert_int_equal(rdma_disconnect(id), -1);

    assert_int_equal(ibv_dereg_mr(mr), 0);
    rdma_destroy_qp(id);
    assert_int_equal(ibv_destroy_cq(attr.send_cq), 0);
    assert_int_equal(ibv_destroy_comp_channel(completions), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(rdma_destroy_id(id), 0);
    rdma_destroy_event_channel(channel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_small_library_is_there),
        cmocka_unit_test(a_child_does_not_get_the_library),
        cmocka_unit_test(a_program_that_starts_another_one_keeps_the_library),
        cmocka_unit_test(calls_without_an_object_reach_the_real_library),
        cmocka_unit_test(the_newest_version_is_the_real_one),
        cmocka_unit_test(calls_of_a_library_are_real),
        cmocka_unit_test(the_main_program_gets_a_false_device),
        cmocka_unit_test(calls_of_a_library_stay_real),
        cmocka_unit_test(a_migration_reaches_the_engine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
