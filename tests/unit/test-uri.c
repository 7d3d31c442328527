/* SPDX-License-Identifier: BSD-2-Clause */
/* test-uri.c -- URIs and their options, good and bad */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <vmferry/plugin/transport.h>
#include <vmferry/uri.h>

#include "base/options.h"
#include "base/uri-parts.h"

/* A transport with an option of every type. */
static const VmfOptionSpec test_options[] = {
    {.name = "flag", .type = VMF_OPTION_BOOL, .default_value = "off", .help = "on or not"},
    {.name = "count",
     .type = VMF_OPTION_UINT,
     .default_value = "7",
     .min = 2,
     .max = 9,
     .help = "how many"},
    {.name = "number", .type = VMF_OPTION_UINT, .default_value = "0", .help = "any number"},
    {.name = "room",
     .type = VMF_OPTION_SIZE,
     .default_value = "auto",
     .min = 1,
     .help = "how large"},
    {.name = "pause", .type = VMF_OPTION_DURATION, .default_value = "1500ms", .help = "how long"},
    {.name = "mode",
     .type = VMF_OPTION_CHOICE,
     .default_value = "slow",
     .choices = "slow|fast",
     .help = "which way"},
    {.name = "label", .type = VMF_OPTION_STRING, .help = "any text"},
    {0},
};

static int register_transport(void **state)
{
    static VmfTransport transport;

    (void)state;
    transport = *vmf_transport_find("tcp", NULL);
    transport.scheme = "test";
    transport.options = test_options;
    return vmf_transport_register(&transport, NULL) ? 0 : -1;
}

/* --- parts --- */

static void parse__cuts_host_and_port(void **state)
{
    static const struct {
        const char *text, *host, *port;
    } good[] = {
        {"tcp:host:4444", "host", "4444"},
        {"tcp:10.0.0.1:1", "10.0.0.1", "1"},
        {"tcp::4444", "", "4444"},
        {"tcp:[::1]:4444", "::1", "4444"},
        {"tcp:[fe80::1%eth0]:65535", "fe80::1%eth0", "65535"},
        {"tcp:host:0,channels=2", "host", "0"},
        {"tcp:a.b-c.example:80,timeout=5s,channels=1", "a.b-c.example", "80"},
    };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(VmfUri) uri = vmf_uri_parse(good[i].text, NULL);

        assert_non_null(uri);
        assert_string_equal(vmf_uri_scheme(uri), "tcp");
        assert_string_equal(vmf_uri_host(uri), good[i].host);
        assert_string_equal(vmf_uri_port(uri), good[i].port);
        assert_null(vmf_uri_path(uri));
        assert_string_equal(vmf_uri_text(uri), good[i].text);
    }
}

static void parse__of_unix_takes_a_path_with_doubled_commas(void **state)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse("unix:/run/a,,b:c,channels=3", NULL);

    (void)state;
    assert_non_null(uri);
    assert_string_equal(vmf_uri_path(uri), "/run/a,b:c");
    assert_null(vmf_uri_port(uri));
    assert_string_equal(vmf_uri_host(uri), "");
    assert_int_equal(vmf_uri_get_uint(uri, "channels"), 3);
}

/* Parsing must fail with that code. The message must have all of the words, which | separates. */
static void assert_bad(const char *text, int code, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) list = g_strsplit(words, "|", -1);

    assert_null(vmf_uri_parse(text, &error));
    assert_non_null(error);
    assert_int_equal(error->code, code);
    for (char **word = list; *word; word++) {
        if (!strstr(error->message, *word)) {
            fail_msg("%s: \"%s\" is not in \"%s\"", text, *word, error->message);
        }
    }
}

static void parse__refuses_what_is_no_uri(void **state)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "SCHEME:"},
        {"host", "SCHEME:"},
        {":host:1", "SCHEME:"},
        {"tcp:", "no :PORT"},
        {"tcp:host", "no :PORT"},
        {"tcp:host:", "0 to 65535"},
        {"tcp:host:65536", "0 to 65535"},
        {"tcp:host:-1", "0 to 65535"},
        {"tcp:host:+1", "0 to 65535"},
        {"tcp:host: 1", "0 to 65535"},
        {"tcp:host:http", "0 to 65535"},
        {"tcp:host:99999999999999999999", "0 to 65535"},
        {"tcp:fe80::1:4444", "brackets"},
        {"tcp:[::1:4444", "brackets"},
        {"tcp:[]:4444", "brackets"},
        {"tcp:[::1]4444", "no :PORT"},
        {"tcp:[::1]", "no :PORT"},
        {"unix:", "needs a path"},
        {"unix:,channels=2", "needs a path"},
        {"TCP:host:1", "not a URI scheme"},
        {"../x:host:1", "not a URI scheme"},
        {"tcp://host:4444", "no slashes after tcp:|write tcp:host:4444"},
        {"tcp://[::1]:4444,channels=2", "write tcp:[::1]:4444,channels=2"},
        {"exec:cat", "exec: is not a URI scheme|vmferry receive URI --save FILE"},
        {"fd:3", "fd: is not a URI scheme|vmferry send"},
        {"file:/tmp/vm.mig", "file: is not a URI scheme"},
        {"host:4444", "no SCHEME:|write rdma:host:4444 or tcp:host:4444"},
        {"10.0.0.1:4444", "no SCHEME:|tcp:10.0.0.1:4444"},
    };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_bad(bad[i].text, VMF_ERROR_INVALID, bad[i].words);
    }
    assert_bad("unheard-of:host:1", VMF_ERROR_PLUGIN, "no transport for unheard-of:");
}

/* --- options --- */

static void options__have_their_defaults(void **state)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse("test:host:1", NULL);

    (void)state;
    assert_non_null(uri);
    assert_int_equal(vmf_uri_get_uint(uri, "channels"), 0); /* auto */
    assert_int_equal(vmf_uri_get_uint(uri, "timeout"), 10000);
    assert_int_equal(vmf_uri_get_uint(uri, "connect-timeout"), 10000);
    assert_int_equal(vmf_uri_get_uint(uri, "max-inflight"), 32 << 20);
    assert_true(vmf_uri_get_bool(uri, "zero-detect"));
    assert_false(vmf_uri_get_bool(uri, "flag"));
    assert_int_equal(vmf_uri_get_uint(uri, "count"), 7);
    assert_int_equal(vmf_uri_get_uint(uri, "room"), 0);
    assert_int_equal(vmf_uri_get_uint(uri, "pause"), 1500);
    assert_string_equal(vmf_uri_get_string(uri, "mode"), "slow");
    assert_string_equal(vmf_uri_get_string(uri, "label"), "");
    assert_false(vmf_uri_is_set(uri, "channels"));
    assert_false(vmf_uri_is_set(uri, "mode"));
}

static void options__are_read_by_their_type(void **state)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse("test:h:1,flag=yes,count=9,room=3MiB,pause=2min,"
                                          "mode=fast,label=a,,b=c,channels=64,zero-detect=0",
                                          NULL);

    (void)state;
    assert_non_null(uri);
    assert_true(vmf_uri_get_bool(uri, "flag"));
    assert_int_equal(vmf_uri_get_uint(uri, "count"), 9);
    assert_int_equal(vmf_uri_get_uint(uri, "room"), 3 << 20);
    assert_int_equal(vmf_uri_get_uint(uri, "pause"), 120000);
    assert_string_equal(vmf_uri_get_string(uri, "mode"), "fast");
    assert_string_equal(vmf_uri_get_string(uri, "label"), "a,b=c");
    assert_int_equal(vmf_uri_get_uint(uri, "channels"), 64);
    assert_false(vmf_uri_get_bool(uri, "zero-detect"));
    assert_true(vmf_uri_is_set(uri, "flag"));
    assert_true(vmf_uri_is_set(uri, "channels"));
    assert_false(vmf_uri_is_set(uri, "timeout"));
}

static void options__know_their_units(void **state)
{
    static const struct {
        const char *option, *text;
        uint64_t value;
    } good[] = {
        {"room", "1", 1},
        {"room", "65536", 65536},
        {"room", "64K", 65536},
        {"room", "64k", 65536},
        {"room", "1G", 1ull << 30},
        {"room", "2TiB", 2ull << 40},
        {"room", "18446744073709551615", UINT64_MAX},
        {"room", "auto", 0},
        {"pause", "250ms", 250},
        {"pause", "10", 10000},
        {"pause", "10s", 10000},
        {"pause", "1h", 3600000},
        {"pause", "0", 0},
        {"channels", "auto", 0},
        {"channels", "1", 1},
        {"timeout", "100ms", 100},
        {"max-inflight", "64K", 65536},
    };
    g_autoptr(VmfUri) uri = vmf_uri_parse("test:h:1", NULL);

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(vmf_uri_set(uri, good[i].option, good[i].text, NULL));
        assert_true(vmf_uri_get_uint(uri, good[i].option) == good[i].value);
        assert_true(vmf_uri_is_set(uri, good[i].option));
    }
}

static void bad_value__says_what_is_allowed(void **state)
{
    static const struct {
        const char *option, *words;
    } bad[] = {
        {"flag=maybe", "flag=maybe|on or off"},
        {"flag=", "on or off"},
        {"count=1", "count=1|from 2 to 9"},
        {"count=10", "from 2 to 9"},
        {"count=auto", "from 2 to 9"},
        {"count=3K", "a number"},
        {"count=-3", "a number"},
        {"count= 3", "a number"},
        {"count=", "a number"},
        {"room=0", "from 1|auto"},
        {"room=1X", "64K|auto"},
        {"room=1.5G", "64K"},
        {"room=18446744073709551616", "64K"},
        {"room=99999999T", "64K"}, /* overflows by its unit */
        {"pause=10x", "250ms"},
        {"mode=medium", "mode=medium|slow, fast"},
        {"mode=", "slow, fast"},
        {"channels=0", "from 1 to 64|auto"},
        {"channels=65", "from 1 to 64"},
        {"timeout=99ms", "from 100 to 604800000 ms"},
        {"connect-timeout=0", "from 100 to"},
        {"max-inflight=65535", "from 65536"},
        {"zero-detect=2", "on or off"},
    };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *text = g_strdup_printf("test:h:1,%s", bad[i].option);

        assert_bad(text, VMF_ERROR_INVALID, bad[i].words);
    }
}

/* Readers hold numbers in 32 bits and times in an int, so a URI must not give larger ones. */
static void value__that_its_readers_cannot_hold_is_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"tcp:h:1,timeout=4294967396ms", "timeout=4294967396ms|from 100 to 604800000 ms"},
        {"tcp:h:1,connect-timeout=4294967396ms", "connect-timeout=4294967396ms"},
        {"tcp:h:1,device-timeout=18446744073709551615ms", "device-timeout="},
        {"tcp:h:1,timeout=2000h", "timeout=2000h"},
        {"tcp:h:1,device-workers=4294967297", "from 1 to 1024"},
        {"tcp:h:1,max-inflight=18446744073709551615", "max-inflight="},
        {"tcp:h:1,device-queue=16777216T", "device-queue="},
        {"tcp:h:1,devices-queue=16777215T", "devices-queue="},
        /* Numbers without a bound in the table. */
        {"test:h:1,number=4294967296", "number=4294967296|to 4294967295"},
        {"test:h:1,pause=2147483648ms", "pause=2147483648ms|to 2147483647 ms"},
    };
    g_autoptr(VmfUri) most = vmf_uri_parse("test:h:1,timeout=168h,number=4294967295", NULL);

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_bad(bad[i].text, VMF_ERROR_INVALID, bad[i].words);
    }
    assert_int_equal(vmf_uri_get_uint(most, "timeout"), 604800000);
    assert_int_equal(vmf_uri_get_uint(most, "number"), UINT32_MAX);
}

static void unknown_option__lists_the_good_ones(void **state)
{
    (void)state;
    assert_bad("test:h:1,chanels=4", VMF_ERROR_INVALID,
               "\"chanels\"|channels (data channels|timeout (|connect-timeout (|max-inflight (|"
               "zero-detect (|flag (on or not)|mode (which way)|label (any text)");
    assert_bad("test:h:1,flag", VMF_ERROR_INVALID, "\"flag\"|no =value");
    assert_bad("test:h:1,", VMF_ERROR_INVALID, "no =value");
    assert_bad("test:h:1,=on", VMF_ERROR_INVALID, "has no option \"\"");
    assert_bad("tcp:h:1,mode=fast", VMF_ERROR_INVALID, "has no option \"mode\"");
}

static void set__that_fails_leaves_the_value(void **state)
{
    g_autoptr(VmfUri) uri = vmf_uri_parse("test:h:1,count=5,mode=fast", NULL);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(vmf_uri_set(uri, "count", "12", &error));
    g_clear_error(&error);
    assert_int_equal(vmf_uri_get_uint(uri, "count"), 5);
    assert_false(vmf_uri_set(uri, "mode", "medium", &error));
    g_clear_error(&error);
    assert_string_equal(vmf_uri_get_string(uri, "mode"), "fast");
    assert_false(vmf_uri_set(uri, "flag", "maybe", &error));
    assert_false(vmf_uri_is_set(uri, "flag"));
    assert_true(vmf_uri_set(uri, "count", "6", NULL));
    assert_int_equal(vmf_uri_get_uint(uri, "count"), 6);
    assert_string_equal(vmf_uri_text(uri), "test:h:1,count=5,mode=fast"); /* as given */
}

static void ref__keeps_a_uri_alive(void **state)
{
    VmfUri *uri = vmf_uri_parse("test:h:1", NULL);

    (void)state;
    assert_ptr_equal(vmf_uri_ref(uri), uri);
    vmf_uri_unref(uri);
    assert_string_equal(vmf_uri_host(uri), "h");
    vmf_uri_unref(uri);
    vmf_uri_unref(NULL);
}

static void general_options__allow_their_own_defaults(void **state)
{
    (void)state;
    for (const VmfOptionSpec *spec = vmf_uri_general_options(); spec->name; spec++) {
        g_autoptr(GError) error = NULL;

        if (!option_spec_check(spec, &error)) {
            fail_msg("%s", error->message);
        }
    }
}

/*
 * As GLib comes back in a thread that had to wait for another one's first number.
 */
static bool leaves_an_errno;

guint64 __real_g_ascii_strtoull(const char *text, char **end, guint base);
guint64 __wrap_g_ascii_strtoull(const char *text, char **end, guint base);

guint64 __wrap_g_ascii_strtoull(const char *text, char **end, guint base)
{
    const guint64 number = __real_g_ascii_strtoull(text, end, base);

    if (leaves_an_errno && errno != ERANGE) {
        errno = EAGAIN;
    }
    return number;
}

static void numbers__are_read_beside_other_threads(void **state)
{
    g_autoptr(VmfUri) uri = NULL;

    (void)state;
    leaves_an_errno = true;
    uri = vmf_uri_parse("test:host:4444,room=18446744073709551615", NULL);
    assert_null(vmf_uri_parse("test:host:4444,room=18446744073709551616", NULL));
    leaves_an_errno = false;
    assert_non_null(uri);
    assert_int_equal(vmf_uri_get_uint(uri, "count"), 7);
    assert_int_equal(vmf_uri_get_uint(uri, "pause"), 1500);
    assert_int_equal(vmf_uri_get_uint(uri, "room"), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers__are_read_beside_other_threads),
        cmocka_unit_test(parse__cuts_host_and_port),
        cmocka_unit_test(parse__of_unix_takes_a_path_with_doubled_commas),
        cmocka_unit_test(parse__refuses_what_is_no_uri),
        cmocka_unit_test(options__have_their_defaults),
        cmocka_unit_test(options__are_read_by_their_type),
        cmocka_unit_test(options__know_their_units),
        cmocka_unit_test(bad_value__says_what_is_allowed),
        cmocka_unit_test(value__that_its_readers_cannot_hold_is_refused),
        cmocka_unit_test(unknown_option__lists_the_good_ones),
        cmocka_unit_test(set__that_fails_leaves_the_value),
        cmocka_unit_test(ref__keeps_a_uri_alive),
        cmocka_unit_test(general_options__allow_their_own_defaults),
    };

    return cmocka_run_group_tests(tests, register_transport, NULL);
}
