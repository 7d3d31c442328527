/* SPDX-License-Identifier: BSD-2-Clause */
/* test-registry.c -- finding, checking and registering transports; plugins good and bad */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <vmferry/plugin/transport.h>

/* The plugins are built beside this program. */
static char *plugin_directory(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);

    assert_non_null(self);
    return g_path_get_dirname(self);
}

static void set_plugin_path(const char *path)
{
    assert_true(g_setenv("VMFERRY_PLUGIN_PATH", path, TRUE));
}

static int set_up(void **state)
{
    g_autofree char *directory = plugin_directory();

    (void)state;
    set_plugin_path(directory);
    return 0;
}

static void assert_not_found(const char *scheme, int code, const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_null(vmf_transport_find(scheme, &error));
    assert_non_null(error);
    assert_true(error->domain == VMF_ERROR);
    assert_int_equal(error->code, code);
    if (!strstr(error->message, text)) {
        fail_msg("\"%s\" is not in \"%s\"", text, error->message);
    }
}

/* --- built in --- */

static void find__knows_what_is_built_in(void **state)
{
    (void)state;
    set_plugin_path("/nonexistent");
    assert_string_equal(vmf_transport_find("tcp", NULL)->scheme, "tcp");
    assert_string_equal(vmf_transport_find("unix", NULL)->scheme, "unix");
}

static void find__refuses_a_bad_scheme(void **state)
{
    static const char *const bad[] = {"",   "../tcp", "a/b",   "Rdma",      "9p",
                                      "-x", ".",      "rdma ", "r\xc3\xa9", "a_b"};
    char longest[34];

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_not_found(bad[i], VMF_ERROR_INVALID, "is not a URI scheme");
    }
    memset(longest, 'a', 33);
    longest[33] = '\0';
    assert_not_found(longest, VMF_ERROR_INVALID, "is not a URI scheme");
    longest[32] = '\0';
    assert_not_found(longest, VMF_ERROR_PLUGIN, "no transport for");
    assert_not_found("x+y.z-1", VMF_ERROR_PLUGIN, "vmferry-x+y.z-1.so");
}

/* --- plugins --- */

static void find__loads_a_plugin_once(void **state)
{
    const VmfTransport *found = vmf_transport_find("good", NULL);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_non_null(found);
    assert_string_equal(found->scheme, "good");
    assert_true(VMF_TRANSPORT_HAS(found, close));
    assert_false(VMF_TRANSPORT_HAS(found, raw_write));
    assert_null(found->connect(NULL, NULL, NULL, &error)); /* its code runs */
    assert_int_equal(error->code, VMF_ERROR_UNSUPPORTED);
    set_plugin_path("/nonexistent");
    assert_ptr_equal(vmf_transport_find("good", NULL), found);
}

static void *find_shared(void *unused)
{
    (void)unused;
    return (void *)vmf_transport_find("shared", NULL);
}

static void find__from_many_threads_gives_one_table(void **state)
{
    GThread *threads[8];
    void *first;

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("finds", find_shared, NULL);
    }
    first = g_thread_join(threads[0]);
    assert_non_null(first);
    for (unsigned i = 1; i < G_N_ELEMENTS(threads); i++) {
        assert_ptr_equal(g_thread_join(threads[i]), first);
    }
}

static void find__refuses_a_wrong_plugin_and_says_why(void **state)
{
    (void)state;
    assert_not_found("wrong-abi", VMF_ERROR_PLUGIN, "transport ABI 3, this library has 2");
    assert_not_found("lacks-member", VMF_ERROR_PLUGIN, "lacks the callback revoke");
    assert_not_found("no-entry", VMF_ERROR_PLUGIN, "has no vmf_transport_entry");
    assert_not_found("offers-nothing", VMF_ERROR_PLUGIN, "offers no transport");
    assert_not_found("wrong-scheme", VMF_ERROR_PLUGIN, "is for other:, not for wrong-scheme:");
    assert_not_found("bad-option", VMF_ERROR_PLUGIN, "option depth=9: allowed is a number");
    assert_not_found("lacks-member", VMF_ERROR_PLUGIN, "lacks"); /* a refusal is not kept */
}

/* What lies past an older plugin's table is no member, whatever bytes are there. */
static void find__takes_an_older_plugin_without_what_was_added_later(void **state)
{
    const VmfTransport *old = vmf_transport_find("old", NULL);

    (void)state;
    assert_non_null(old);
    assert_non_null(old->raw_write);
    assert_false(VMF_TRANSPORT_HAS(old, raw_write));
}

static void assert_connects_to_nothing(const VmfTransport *transport, const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(transport->connect(NULL, NULL, NULL, &error));
    assert_string_equal(error->message, message);
}

static void prepare__lets_the_plugin_load_what_it_needs(void **state)
{
    const VmfTransport *found = vmf_transport_find("prepares", NULL);

    (void)state;
    assert_non_null(found);
    assert_connects_to_nothing(found, "a test plugin connects to nothing");
    assert_true(vmf_transport_prepare("prepares", NULL));
    assert_connects_to_nothing(found, "a test plugin connects to nothing, though it is prepared");
}

/* The transport is built in, and has no such callback: nothing is done. */
static void prepare__asks_nothing_of_a_transport_without_it(void **state)
{
    const VmfTransport *old = vmf_transport_find("old", NULL);

    (void)state;
    assert_true(vmf_transport_prepare("tcp", NULL));
    assert_true(vmf_transport_prepare("old", NULL));
    assert_connects_to_nothing(old, "a test plugin connects to nothing");
}

static void prepare__says_that_there_is_no_such_transport(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(vmf_transport_prepare("none-such", &error));
    assert_true(g_error_matches(error, VMF_ERROR, VMF_ERROR_PLUGIN));
}

/* Makes a folder with one file of that name and content. */
static char *folder_with(const char *name, const char *content, char **file)
{
    char *folder = g_dir_make_tmp("vmferry-test-XXXXXX", NULL);

    assert_non_null(folder);
    *file = g_build_filename(folder, name, NULL);
    assert_true(g_file_set_contents(*file, content, -1, NULL));
    return folder;
}

static void find__names_the_packages_when_rdma_is_missing_or_does_not_load(void **state)
{
    g_autofree char *file = NULL;
    g_autofree char *folder = folder_with("vmferry-rdma.so", "no library", &file);

    (void)state;
    set_plugin_path("/nonexistent");
    assert_not_found("rdma", VMF_ERROR_PLUGIN, "install the package vmferry-rdma");
    set_plugin_path(folder);
    assert_not_found("rdma", VMF_ERROR_PLUGIN, "libibverbs1, librdmacm1 and ibverbs-providers");
    assert_not_found("rdma", VMF_ERROR_PLUGIN, "file too short"); /* the loader's own words */
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void find__searches_the_path_in_order_and_nothing_else(void **state)
{
    g_autofree char *file = NULL;
    g_autofree char *folder = folder_with("vmferry-ordered.so", "no library", &file);
    g_autofree char *plugins = plugin_directory();
    g_autofree char *bad_first = g_strdup_printf("%s:%s", folder, plugins);
    g_autofree char *good_first = g_strdup_printf("/nonexistent::%s:%s", plugins, folder);
    g_autofree char *here = g_get_current_dir();

    (void)state;
    set_plugin_path(folder);
    assert_not_found("unheard-of", VMF_ERROR_PLUGIN, folder);
    set_plugin_path(bad_first);
    assert_not_found("ordered", VMF_ERROR_PLUGIN, "does not load");
    set_plugin_path(good_first);
    assert_int_equal(chdir(folder), 0); /* an empty entry is not the current folder */
    assert_non_null(vmf_transport_find("ordered", NULL));
    assert_int_equal(chdir(here), 0);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void find__without_a_path_looks_in_the_installed_directory_alone(void **state)
{
    (void)state;
    g_unsetenv("VMFERRY_PLUGIN_PATH");
    assert_not_found("unheard-of", VMF_ERROR_PLUGIN,
                     "vmferry-unheard-of.so in " TEST_PLUGIN_DIR ")");
}

static void schemes__lists_all_that_load(void **state)
{
    g_auto(GStrv) schemes = vmf_transport_schemes();

    (void)state;
    assert_true(g_strv_contains((const char *const *)schemes, "tcp"));
    assert_true(g_strv_contains((const char *const *)schemes, "unix"));
    assert_true(g_strv_contains((const char *const *)schemes, "good"));
    assert_true(g_strv_contains((const char *const *)schemes, "listed"));
    assert_false(g_strv_contains((const char *const *)schemes, "wrong-abi"));
    assert_false(g_strv_contains((const char *const *)schemes, "other"));
}

/* --- registered by the program --- */

static void assert_register_fails(const VmfTransport *transport, const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_false(vmf_transport_register(transport, &error));
    assert_int_equal(error->code, VMF_ERROR_PLUGIN);
    assert_non_null(strstr(error->message, text));
}

static void register__adds_a_transport_once(void **state)
{
    static VmfTransport own; /* the registry keeps it */

    (void)state;
    own = *vmf_transport_find("tcp", NULL);
    own.scheme = "own";
    assert_true(vmf_transport_register(&own, NULL));
    assert_ptr_equal(vmf_transport_find("own", NULL), &own);
    assert_register_fails(&own, "already");
    assert_register_fails(vmf_transport_find("tcp", NULL), "already");
}

static void register__needs_every_member_up_to_close(void **state)
{
    const VmfTransport *tcp = vmf_transport_find("tcp", NULL);
    size_t end = offsetof(VmfTransport, close);

    (void)state;
    for (size_t at = offsetof(VmfTransport, connect); at <= end; at += sizeof(void *)) {
        VmfTransport copy = *tcp;

        copy.scheme = "incomplete";
        memset((char *)&copy + at, 0, sizeof(void *));
        assert_register_fails(&copy, "lacks the callback");
    }
    for (uint32_t size = 0; size < end + sizeof(void *); size += 4) {
        VmfTransport copy = *tcp;

        copy.scheme = "short";
        copy.size = size;
        assert_register_fails(&copy, "lacks the callback");
    }
}

static void register__checks_scheme_and_channels(void **state)
{
    const VmfTransport *tcp = vmf_transport_find("tcp", NULL);
    VmfTransport copy = *tcp;

    (void)state;
    copy.scheme = "Not/One";
    assert_register_fails(&copy, "no valid scheme");
    copy.scheme = NULL;
    assert_register_fails(&copy, "no valid scheme");
    copy.scheme = "channels";
    copy.channels_max = 0;
    assert_register_fails(&copy, "channel limit");
    copy.channels_max = VMF_CHANNELS_MAX + 1;
    assert_register_fails(&copy, "channel limit");
}

static void register__checks_the_option_table(void **state)
{
    static const VmfOptionSpec wrong[][2] = {
        {{.name = "a", .type = VMF_OPTION_CHOICE, .default_value = "x", .help = "no choices"}},
        {{.name = "a", .type = VMF_OPTION_CHOICE, .choices = "x|y", .help = "no default"}},
        {{.name = "a", .type = VMF_OPTION_SIZE, .default_value = "4Q", .help = "no size"}},
        {{.name = "a", .type = (VmfOptionType)77, .default_value = "4", .help = "no type"}},
        {{.name = "a", .type = VMF_OPTION_STRING}},
    };

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        VmfTransport copy = *vmf_transport_find("tcp", NULL);

        copy.scheme = "options";
        copy.options = wrong[i];
        assert_register_fails(&copy, "option table of the transport is wrong");
    }
}

/* --- connections that a plugin makes wrongly --- */

static void without_room(VmfConn *conn)
{
    conn->size = offsetof(VmfConn, reserved);
}

static void foreign_without_stream(VmfConn *conn)
{
    static VmfTransport lacks;

    lacks = *conn->ops;
    lacks.open_back = (__typeof__(lacks.open_back))(void (*)(void))set_up; /* never called */
    conn->foreign = true;
    conn->ops = &lacks;
}

static void with_the_table_of_another_abi(VmfConn *conn)
{
    static VmfTransport other;

    other = *conn->ops;
    other.abi_version++;
    conn->ops = &other;
}

static void (*spoil)(VmfConn *conn);

static VmfConn *connect_and_spoil(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                                  GCancellable *cancel, GError **error)
{
    const VmfTransport *tcp = vmf_transport_find("tcp", NULL);
    VmfConn *conn = tcp->connect(uri, uuid, cancel, error);

    if (conn) {
        conn->ops = tcp;
        spoil(conn);
    }
    return conn;
}

static void assert_spoiled_is_refused(void (*how)(VmfConn *conn), const char *text)
{
    g_autoptr(VmfUri) any = vmf_uri_parse("tcp:127.0.0.1:0", NULL);
    g_autoptr(VmfListener) listener = vmf_listener_new(any, NULL);
    g_autofree char *there =
        g_strdup_printf("spoils:%s", vmf_listener_address(listener) + strlen("tcp:"));
    g_autoptr(VmfUri) uri = vmf_uri_parse(there, NULL);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(GError) error = NULL;

    spoil = how;
    assert_non_null(uri);
    assert_null(vmf_session_connect(uri, blocks, NULL, &error));
    assert_int_equal(error->code, VMF_ERROR_PLUGIN);
    assert_non_null(strstr(error->message, text));
}

static void connect__refuses_a_connection_that_the_engine_cannot_use(void **state)
{
    static VmfTransport spoils;

    (void)state;
    spoils = *vmf_transport_find("tcp", NULL);
    spoils.scheme = "spoils";
    spoils.connect = connect_and_spoil;
    assert_true(vmf_transport_register(&spoils, NULL));
    assert_spoiled_is_refused(without_room, "has room for");
    assert_spoiled_is_refused(foreign_without_stream, "lacks the callback send_stream");
    assert_spoiled_is_refused(with_the_table_of_another_abi, "transport ABI 3");
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(find__knows_what_is_built_in),
        TEST(find__refuses_a_bad_scheme),
        TEST(find__loads_a_plugin_once),
        TEST(find__from_many_threads_gives_one_table),
        TEST(find__refuses_a_wrong_plugin_and_says_why),
        TEST(find__takes_an_older_plugin_without_what_was_added_later),
        TEST(prepare__lets_the_plugin_load_what_it_needs),
        TEST(prepare__asks_nothing_of_a_transport_without_it),
        TEST(prepare__says_that_there_is_no_such_transport),
        TEST(find__names_the_packages_when_rdma_is_missing_or_does_not_load),
        TEST(find__searches_the_path_in_order_and_nothing_else),
        TEST(find__without_a_path_looks_in_the_installed_directory_alone),
        TEST(schemes__lists_all_that_load),
        TEST(register__adds_a_transport_once),
        TEST(register__needs_every_member_up_to_close),
        TEST(register__checks_scheme_and_channels),
        TEST(register__checks_the_option_table),
        TEST(connect__refuses_a_connection_that_the_engine_cannot_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
