/* SPDX-License-Identifier: BSD-2-Clause */
/* test-receive.c -- vmferry receive loses neither the VM that comes nor the one that was saved
 * before
 *
 * A source runs in a thread beside the command. The hand-over's last call is wrapped: what can
 * happen to a source between the file's publishing and that call happens here every time.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <vmferry/vmferry.h>

#include "commands.h"
#include "support/saved-vm.h"

#define PAGES 64

bool __real_vmf_session_complete(VmfSession *session, GError **error);
bool __wrap_vmf_session_complete(VmfSession *session, GError **error);
VmfOwner __real_vmf_session_get_owner(VmfSession *session);
VmfOwner __wrap_vmf_session_get_owner(VmfSession *session);
bool __real_vmf_session_peer_is_qemu(const VmfSession *session);
bool __wrap_vmf_session_peer_is_qemu(const VmfSession *session);

typedef enum {
    GOES_WELL,
    CANCELLED,        /* the source is cancelled after the file has its name */
    OUTCOME_UNKNOWN,  /* the same, and the outcome stays unknown */
    STOCK,            /* the source has no hand-over, and nothing fails */
    STOCK_ENDS_BADLY, /* the same, and its connection breaks when it is done */
} Ending;

/* The ending of the test that runs. */
static Ending ending;
static bool is_stock; /* what the receiver takes its peer for */
static GThread *receiver;
static VmfSession *source; /* atomic */

bool __wrap_vmf_session_complete(VmfSession *session, GError **error)
{
    if (g_thread_self() != receiver) {
        __atomic_store_n(&source, session, __ATOMIC_RELEASE);
        return __real_vmf_session_complete(session, error);
    }
    if (ending == GOES_WELL || ending == STOCK) {
        return __real_vmf_session_complete(session, error);
    }
    /* The source is in its vmf_session_complete(), because only that ends the stream. */
    vmf_session_cancel(__atomic_load_n(&source, __ATOMIC_ACQUIRE));
    if (ending == OUTCOME_UNKNOWN) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME, "it may have given it up");
        return false;
    }
    return __real_vmf_session_complete(session, error);
}

VmfOwner __wrap_vmf_session_get_owner(VmfSession *session)
{
    return ending == OUTCOME_UNKNOWN ? VMF_OWNER_UNKNOWN : __real_vmf_session_get_owner(session);
}

/* The source greets like one with vmferry, and is then taken for stock QEMU. */
bool __wrap_vmf_session_peer_is_qemu(const VmfSession *session)
{
    VmfFile *file = vmf_session_get_file((VmfSession *)session);

    if (g_thread_self() != receiver || (ending != STOCK && ending != STOCK_ENDS_BADLY)) {
        return __real_vmf_session_peer_is_qemu(session);
    }
    if (!is_stock) {
        vmf_get_be64(file);
        is_stock = true;
    }
    return true;
}

static int enter_folder(void **state)
{
    g_autoptr(GByteArray) vm = saved_vm_new(PAGES, 7, TRUE, TRUE);

    *state = g_dir_make_tmp("vmferry-receive-XXXXXX", NULL);
    return *state && g_chdir(*state) == 0 &&
                   g_file_set_contents("new.mig", (char *)vm->data, vm->len, NULL)
               ? 0
               : -1;
}

static int leave_folder(void **state)
{
    g_autofree char *remove = g_strdup_printf("rm -rf '%s'", (char *)*state);

    g_free(*state);
    return g_chdir("/") || system(remove);
}

static unsigned count_saves(void)
{
    g_autoptr(GDir) folder = g_dir_open(".", 0, NULL);
    const char *name;
    unsigned count = 0;

    while ((name = g_dir_read_name(folder))) {
        count += g_str_has_prefix(name, "vm.mig");
    }
    return count;
}

/* The socket's file is there before anybody listens on it, so that the first attempts may fail. */
static VmfSession *connect_soon(const VmfUri *uri, VmfRamBlocks *blocks)
{
    const gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    VmfSession *session;

    while (!(session = vmf_session_connect(uri, blocks, NULL, NULL)) &&
           g_get_monotonic_time() < deadline) {
        g_usleep(1000);
    }
    return session;
}

/* RAM comes in the stream. */
static void *send_main(void *opaque)
{
    const GByteArray *vm = opaque;
    g_autoptr(VmfUri) uri = vmf_uri_parse("unix:socket", NULL);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(VmfSession) session = NULL;
    void *ram = g_aligned_alloc0(PAGES, 4096, 4096);

    vmf_ram_blocks_add(blocks, "pc.ram", ram, PAGES * 4096, 4096, NULL);
    session = connect_soon(uri, blocks);
    if (session) {
        vmf_put_be32(vmf_session_get_file(session), VMF_QEMU_GREETING);
        vmf_put_be32(vmf_session_get_file(session), 0);
        vmf_put_buffer(vmf_session_get_file(session), vm->data, vm->len);
        vmf_session_complete(session, NULL);
    }
    vmf_session_free(g_steal_pointer(&session));
    g_aligned_free(ram);
    return NULL;
}

/* The VM is sent without its last `cut' bytes. */
static bool receive(Ending how, unsigned cut, GError **error)
{
    g_autoptr(GByteArray) vm = saved_vm_new(PAGES, 7, TRUE, TRUE);
    char *arguments[] = {"receive", "unix:socket", "--save", "vm.mig", "--progress", "none", NULL};
    GThread *thread;
    bool ok;

    ending = how;
    is_stock = false;
    receiver = g_thread_self();
    g_byte_array_set_size(vm, vm->len - cut);
    thread = g_thread_new("send", send_main, vm);
    ok = receive_command(6, arguments, error);
    g_thread_join(thread);
    return ok;
}

static void assert_same(const char *name, const char *other)
{
    g_autofree char *one = NULL, *two = NULL;
    gsize size, other_size;

    assert_true(g_file_get_contents(name, &one, &size, NULL));
    assert_true(g_file_get_contents(other, &two, &other_size, NULL));
    assert_int_equal(size, other_size);
    assert_memory_equal(one, two, size);
}

static void older_save(void)
{
    assert_true(g_file_set_contents("vm.mig", "old", -1, NULL));
    assert_true(g_file_set_contents("old.mig", "old", -1, NULL));
}

static void save__that_goes_well_replaces_the_older_one(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    older_save();
    assert_true(receive(GOES_WELL, 0, &error));
    assert_same("vm.mig", "new.mig");
    assert_int_equal(count_saves(), 1);
}

static void source__that_keeps_its_vm_destroys_no_older_save(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    older_save();
    assert_false(receive(CANCELLED, 0, &error));
    assert_same("vm.mig", "old.mig");
    assert_int_equal(count_saves(), 1);
}

static void source__that_keeps_its_vm_leaves_no_second_one(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(receive(CANCELLED, 0, &error));
    assert_int_equal(count_saves(), 0);
}

static void outcome__that_is_unknown_keeps_both(void **state)
{
    g_autoptr(GError) error = NULL;
    const char *older;

    (void)state;
    older_save();
    assert_false(receive(OUTCOME_UNKNOWN, 0, &error));
    assert_int_equal(error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_same("vm.mig", "new.mig");
    assert_int_equal(count_saves(), 2);
    older = strstr(error->message, "is in ");
    assert_non_null(older);
    assert_same(older + strlen("is in "), "old.mig");
}

/* A stock source that is done has given up its VM, and does not know what became of it. */
static void stock_source__that_is_done_has_its_vm_saved(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    older_save();
    assert_false(receive(STOCK_ENDS_BADLY, 0, &error));
    assert_int_equal(error->code, VMF_ERROR_UNKNOWN_OUTCOME);
    assert_same("vm.mig", "new.mig");
    assert_int_equal(count_saves(), 2);
}

/* A source that is killed closes the connection like one that is done. */
static void stock_source__that_was_cut_off_destroys_no_older_save(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    older_save();
    assert_false(receive(STOCK, 70, &error));
    assert_same("vm.mig", "old.mig");
    assert_int_equal(count_saves(), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)
    const struct CMUnitTest tests[] = {
        TEST(save__that_goes_well_replaces_the_older_one),
        TEST(source__that_keeps_its_vm_destroys_no_older_save),
        TEST(source__that_keeps_its_vm_leaves_no_second_one),
        TEST(outcome__that_is_unknown_keeps_both),
        TEST(stock_source__that_is_done_has_its_vm_saved),
        TEST(stock_source__that_was_cut_off_destroys_no_older_save),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
