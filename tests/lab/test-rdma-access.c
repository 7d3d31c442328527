/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * test-rdma-access.c -- a source that means harm writes by its control connection
 *
 * On a real device, over the transport of VMFERRY_TEST_URI (rdma:). It knows address and key, for
 * a source is told them to write RAM over the channels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/pair.h"
#include "rdma-conn.h"
#include "session/session-state.h"

#define RAM (8ul << 20)
#define BYTES 64u

static Pair pair;

/* By a queue pair that it has, with what it was told. Unsignalled: only a failure is heard of. */
static void write_by_control(uint64_t address, uint32_t rkey)
{
    RdmaConn *conn = (RdmaConn *)pair.source->conn;
    struct ibv_sge sge = {
        .addr = (uintptr_t)conn->control->memory, .length = BYTES, .lkey = conn->control->mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .wr.rdma = {.remote_addr = address, .rkey = rkey},
    };
    struct ibv_send_wr *bad;

    assert_int_equal(ibv_post_send(conn->control->qp, &wr, &bad), 0);
}

/* The device must refuse it, which ends the connection. */
static void await_refusal(const uint8_t *there, const uint8_t *before)
{
    const gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;

    while (vmf_session_check(pair.source, NULL)) {
        assert_memory_equal(there, before, BYTES);
        assert_true(g_get_monotonic_time() < deadline);
        g_usleep(1000);
    }
    assert_memory_equal(there, before, BYTES);
}

static void control_cannot_write(const char *options, bool when_loaded)
{
    uint8_t before[BYTES];
    const RdmaConn *conn;
    VmfConn *there;
    VmfFile *file;

    pair_init(&pair, RAM, true, options);
    pair_fill(pair.source_ram, RAM, 1);
    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, RAM / 8);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    memcpy(before, pair.destination_ram, BYTES);
    assert_memory_equal(before, pair.source_ram, BYTES);
    there = pair.destination->conn;
    if (when_loaded) { /* as the destination does before it says LOADED */
        assert_true(there->ops->revoke(there, NULL));
    }
    conn = (RdmaConn *)pair.source->conn;
    write_by_control(conn->chunks.remote[0], conn->chunks.chunks[0].rkey);
    await_refusal(pair.destination_ram, before);
    pair_clear(&pair);
}

/* The memory that device state is written to, of which the source is told at any time. */
static void the_control_connection_cannot_write_device_state(void **state)
{
    const uint8_t before[BYTES] = {0};
    const long page = sysconf(_SC_PAGESIZE);
    uint8_t *window = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    const RdmaConn *conn;
    VmfConn *there;

    (void)state;
    assert_true(window != MAP_FAILED);
    pair_init(&pair, RAM, true, ",channels=2");
    pair_connect(&pair);
    there = pair.destination->conn;
    assert_true(there->ops->device_memory(there, window, (size_t)page, NULL));
    conn = (RdmaConn *)pair.source->conn;
    while (!__atomic_load_n(&conn->device_remote.bytes, __ATOMIC_ACQUIRE)) {
        assert_true(vmf_session_check(pair.source, NULL));
        g_usleep(1000);
    }
    write_by_control(conn->device_remote.address, conn->device_remote.rkey);
    await_refusal(window, before);
    pair_clear(&pair);
    munmap(window, (size_t)page);
}

static void the_control_connection_cannot_write_guest_ram(void **state)
{
    (void)state;
    control_cannot_write(",channels=2", false);
    control_cannot_write(",channels=2,registration=pin-all", false);
}

static void nobody_can_write_guest_ram_when_the_guest_may_run(void **state)
{
    (void)state;
    control_cannot_write(",channels=2", true);
    control_cannot_write(",channels=2,registration=pin-all", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_control_connection_cannot_write_guest_ram),
        cmocka_unit_test(nobody_can_write_guest_ram_when_the_guest_may_run),
        cmocka_unit_test(the_control_connection_cannot_write_device_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
