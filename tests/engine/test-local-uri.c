/* SPDX-License-Identifier: BSD-2-Clause */
/* test-local-uri.c -- the URI that QEMU's user means */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "local-qemu/local-uri.h"
#include "socket-rdma.h"
#include "support/test-filter.h"

#define VARIABLE "VMFERRY_QEMU_OPTIONS"

static int set_up_group(void **state)
{
    (void)state;
    g_unsetenv(VARIABLE);
    socket_rdma_register("/nowhere");
    return 0;
}

static VmfUri *make(const char *host, bool pin_all)
{
    g_autoptr(GError) error = NULL;
    VmfUri *uri = local_uri_new(host, "4444", pin_all, &error);

    if (!uri) {
        fail_msg("%s", error->message);
    }
    assert_string_equal(vmf_uri_scheme(uri), "rdma");
    assert_string_equal(vmf_uri_port(uri), "4444");
    return uri;
}

static void expect_error(const char *host, const char *port, const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_null(local_uri_new(host, port, false, &error));
    assert_non_null(error);
    if (!strstr(error->message, text)) {
        fail_msg("no \"%s\" in: %s", text, error->message);
    }
}

static void host__names_and_addresses(void **state)
{
    static const char *const hosts[] = {"192.0.2.1", "host.example", "2001:db8::1", "fe80::1%eth0",
                                        "::"};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(hosts); i++) {
        g_autoptr(VmfUri) uri = make(hosts[i], false);

        assert_string_equal(vmf_uri_host(uri), hosts[i]);
    }
}

static void host__options_follow_it(void **state)
{
    g_autoptr(VmfUri) uri = make("192.0.2.1,channels=3,timeout=7s", false);
    g_autoptr(VmfUri) v6 = make("2001:db8::1,channels=5", false);
    g_autoptr(VmfUri) empty = make("192.0.2.1,", false);

    (void)state;
    assert_string_equal(vmf_uri_host(uri), "192.0.2.1");
    assert_int_equal(vmf_uri_get_uint(uri, "channels"), 3);
    assert_int_equal(vmf_uri_get_uint(uri, "timeout"), 7000);
    assert_string_equal(vmf_uri_host(v6), "2001:db8::1");
    assert_int_equal(vmf_uri_get_uint(v6, "channels"), 5);
    assert_false(vmf_uri_is_set(empty, "channels"));
}

static void variable__its_options_come_before_the_hosts(void **state)
{
    (void)state;
    g_setenv(VARIABLE, "channels=3,timeout=7s", TRUE);
    {
        g_autoptr(VmfUri) plain = make("192.0.2.1", false);
        g_autoptr(VmfUri) both = make("192.0.2.1,channels=4", false);

        assert_int_equal(vmf_uri_get_uint(plain, "channels"), 3);
        assert_int_equal(vmf_uri_get_uint(both, "channels"), 4);
        assert_int_equal(vmf_uri_get_uint(both, "timeout"), 7000);
    }
    g_setenv(VARIABLE, "", TRUE);
    vmf_uri_unref(make("192.0.2.1", false));
    g_unsetenv(VARIABLE);
}

static void options__bad_ones_are_named(void **state)
{
    (void)state;
    expect_error("192.0.2.1,colour=red", "4444", "\"colour\"");
    expect_error("192.0.2.1,channels=many", "4444", "channels");
    expect_error("192.0.2.1,pinned", "4444", "\"pinned\" is no option: write NAME=VALUE");
    expect_error("192.0.2.1", "no port", "no port");
    g_setenv(VARIABLE, "colour=red", TRUE);
    expect_error("192.0.2.1", "4444", VARIABLE);
    expect_error("192.0.2.1", "4444", "\"colour\"");
    g_unsetenv(VARIABLE);
}

static void pin_all__is_the_default_that_qemu_names(void **state)
{
    g_autoptr(VmfUri) not = make("192.0.2.1", false);
    g_autoptr(VmfUri) pinned = make("192.0.2.1", true);
    g_autoptr(VmfUri) host = make("192.0.2.1,registration=chunk", true);

    (void)state;
    assert_string_equal(vmf_uri_get_string(not, "registration"), "auto");
    assert_string_equal(vmf_uri_get_string(pinned, "registration"), "pin-all");
    assert_string_equal(vmf_uri_get_string(host, "registration"), "chunk");
    g_setenv(VARIABLE, "registration=odp", TRUE);
    {
        g_autoptr(VmfUri) variable = make("192.0.2.1", true);

        assert_string_equal(vmf_uri_get_string(variable, "registration"), "odp");
    }
    g_unsetenv(VARIABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host__names_and_addresses),
        cmocka_unit_test(host__options_follow_it),
        cmocka_unit_test(variable__its_options_come_before_the_hosts),
        cmocka_unit_test(options__bad_ones_are_named),
        cmocka_unit_test(pin_all__is_the_default_that_qemu_names),
    };

    FILTER_TESTS(tests);
    return cmocka_run_group_tests(tests, set_up_group, NULL);
}
