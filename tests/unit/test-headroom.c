/* SPDX-License-Identifier: BSD-2-Clause */
/* test-headroom.c -- how much memory may be taken, by files of /proc and /sys made for the test */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib.h>
#include <glib/gstdio.h>

#include "ram/headroom.h"

#define MIB (G_GUINT64_CONSTANT(1) << 20)
#define HOST_HEADROOM (500 * MIB) /* with put_host() */
#define V2 "/sys/fs/cgroup"
#define V1 "/sys/fs/cgroup/memory"
#define NODES "/sys/devices/system/node"

static void remove_tree(const char *path)
{
    GDir *directory = g_dir_open(path, 0, NULL);
    const char *name;

    while (directory && (name = g_dir_read_name(directory))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);

        remove_tree(inner);
    }
    if (directory) {
        g_dir_close(directory);
    }
    g_remove(path);
}

static int make_root(void **state)
{
    *state = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);
    return *state ? 0 : -1;
}

static int remove_root(void **state)
{
    remove_tree(*state);
    g_free(*state);
    return 0;
}

static void put(const char *root, const char *folder, const char *name, const char *text)
{
    g_autofree char *path = g_strconcat(root, folder, NULL);
    g_autofree char *file = g_strconcat(path, "/", name, NULL);

    assert_int_equal(g_mkdir_with_parents(path, 0700), 0);
    assert_true(g_file_set_contents(file, text, -1, NULL));
}

static void put_mib(const char *root, const char *folder, const char *name, uint64_t mib)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT "\n", mib * MIB);

    put(root, folder, name, text);
}

/* 800 MiB, of which 600 are available: 500 above an eighth. */
static void put_host(const char *root)
{
    put(root, "/proc", "meminfo",
        "MemTotal:         819200 kB\nMemFree:           10240 kB\nMemAvailable:     614400 kB\n");
}

static uint64_t headroom(void **state)
{
    return headroom_bytes(*state, state);
}

/* --- the host --- */

static void host__keeps_an_eighth(void **state)
{
    assert_int_equal(headroom(state), 0); /* there is no file */
    put_host(*state);
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put(*state, "/proc", "meminfo", "MemTotal: 819200 kB\nMemAvailable: 102400 kB\n");
    assert_int_equal(headroom(state), 0);
    put(*state, "/proc", "meminfo", "MemTotal: 819200 kB\nMemAvailable: 102404 kB\n");
    assert_int_equal(headroom(state), 4096);
    put(*state, "/proc", "meminfo", "MemTotal: 819200 kB\nMemFree: 614400 kB\n");
    assert_int_equal(headroom(state), 0);
    put(*state, "/proc", "meminfo", "");
    assert_int_equal(headroom(state), 0);
}

static void host__of_this_machine_is_read(void **state)
{
    const uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    (void)state;
    assert_true(headroom_bytes("", state) < all - all / 8);
}

/* --- control groups --- */

static void version_2__limits_of_all_groups_above_count(void **state)
{
    put_host(*state);
    put(*state, "/proc/self", "cgroup", "0::/machine.slice/vm.scope\n");
    put(*state, V2 "/machine.slice/vm.scope", "cgroup.procs", "1\n");
    assert_int_equal(headroom(state), HOST_HEADROOM); /* the controller is not enabled */
    put(*state, V2 "/machine.slice/vm.scope", "memory.max", "max\n");
    put(*state, V2 "/machine.slice/vm.scope", "memory.high", "max\n");
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put_mib(*state, V2 "/machine.slice/vm.scope", "memory.max", 400);
    assert_int_equal(headroom(state), 0); /* what it uses is not known */
    put_mib(*state, V2 "/machine.slice/vm.scope", "memory.current", 100);
    assert_int_equal(headroom(state), 250 * MIB);
    put_mib(*state, V2 "/machine.slice/vm.scope", "memory.high", 200);
    assert_int_equal(headroom(state), 75 * MIB);
    put_mib(*state, V2 "/machine.slice", "memory.max", 160);
    put_mib(*state, V2 "/machine.slice", "memory.current", 130);
    assert_int_equal(headroom(state), 10 * MIB);
    put_mib(*state, V2 "/machine.slice", "memory.current", 170);
    assert_int_equal(headroom(state), 0);
}

static void version_2__container_sees_its_group_as_the_root(void **state)
{
    put_host(*state);
    put(*state, "/proc/self", "cgroup", "0::/\n");
    assert_int_equal(headroom(state), 0); /* nothing is mounted */
    put(*state, V2, "cgroup.procs", "1\n");
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put_mib(*state, V2, "memory.max", 160);
    put_mib(*state, V2, "memory.current", 40);
    assert_int_equal(headroom(state), 100 * MIB);
    /* Its path is that on the host, and it sees its own group in the place of the root. */
    put(*state, "/proc/self", "cgroup", "0::/docker/0123\n");
    assert_int_equal(headroom(state), 100 * MIB);
}

static void version_2__group_that_cannot_be_seen_gives_nothing(void **state)
{
    put_host(*state);
    put(*state, "/proc/self", "cgroup", "0::/../../elsewhere\n");
    put(*state, V2, "cgroup.procs", "1\n");
    assert_int_equal(headroom(state), 0);
}

static void version_1__limits_count_beside_version_2(void **state)
{
    put_host(*state);
    put(*state, "/proc/self", "cgroup",
        "9:name=systemd:/user\n4:cpu,memory:/vm/one\n3:pids:/other\n0::/user.slice\n");
    assert_int_equal(headroom(state), 0);
    put(*state, V1 "/vm/one", "memory.limit_in_bytes", "9223372036854771712\n");
    put_mib(*state, V1 "/vm/one", "memory.usage_in_bytes", 100);
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put_mib(*state, V1 "/vm", "memory.limit_in_bytes", 320);
    put_mib(*state, V1 "/vm", "memory.usage_in_bytes", 100);
    assert_int_equal(headroom(state), 180 * MIB);
}

static void control_groups__none_is_no_limit(void **state)
{
    put_host(*state);
    put(*state, "/proc/self", "cgroup", "");
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put(*state, "/proc/self", "cgroup", "nonsense\n1:\n::\n");
    assert_int_equal(headroom(state), 0);
}

/* --- NUMA nodes --- */

static void put_node(const char *root, unsigned node, uint64_t total, uint64_t free)
{
    g_autofree char *folder = g_strdup_printf(NODES "/node%u", node);
    g_autofree char *text = g_strdup_printf("\nNode %u MemTotal:  %" G_GUINT64_FORMAT
                                            " kB\nNode %u MemFree:  %" G_GUINT64_FORMAT " kB\n",
                                            node, total * 1024, node, free * 1024);

    put(root, folder, "meminfo", text);
}

static void nodes__limit_memory_that_may_not_use_all(void **state)
{
    put_host(*state);
    put(*state, NODES, "has_memory", "0-1,4\n");
    assert_int_equal(headroom(state), HOST_HEADROOM); /* no cpusets */
    put(*state, "/proc/self", "status", "Name:\ttest\nMems_allowed_list:\t0-1023\n");
    assert_int_equal(headroom(state), HOST_HEADROOM);
    put(*state, "/proc/self", "status", "Name:\ttest\nMems_allowed_list:\t1,4\nThreads:\t1\n");
    assert_int_equal(headroom(state), 0); /* their memory is not known */
    put_node(*state, 0, 400, 400);
    put_node(*state, 1, 80, 30);
    put_node(*state, 4, 80, 40);
    assert_int_equal(headroom(state), (20 + 30) * MIB);
    put_node(*state, 1, 80, 10);
    assert_int_equal(headroom(state), 30 * MIB);
    put(*state, "/proc/self", "status", "Mems_allowed_list:\t7\n");
    assert_int_equal(headroom(state), 0);
    put(*state, "/proc/self", "status", "Mems_allowed_list:\tnone of 4294967296-4294967299\n");
    assert_int_equal(headroom(state), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(host__keeps_an_eighth),
        TEST(host__of_this_machine_is_read),
        TEST(version_2__limits_of_all_groups_above_count),
        TEST(version_2__container_sees_its_group_as_the_root),
        TEST(version_2__group_that_cannot_be_seen_gives_nothing),
        TEST(version_1__limits_count_beside_version_2),
        TEST(control_groups__none_is_no_limit),
        TEST(nodes__limit_memory_that_may_not_use_all),
    };

    return cmocka_run_group_tests_name("headroom", tests, NULL, NULL);
}
