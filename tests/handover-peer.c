/* SPDX-License-Identifier: BSD-2-Clause */
/* handover-peer.c -- one side of a hand-over between two hosts, with a command in its middle */

#include <stdlib.h>
#include <string.h>
#include <vmferry/vmferry.h>

#include "message.h"
#include "stepper.h"

#define RAM_BYTES (1u << 20)

static VmfUri *step_uri(const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 2);
    g_autofree char *wrapped = parts[0] && parts[1] ? g_strconcat("step:", parts[1], NULL) : NULL;

    if (!wrapped) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "%s is no URI", text);
        return NULL;
    }
    return stepper_wrap(parts[0], error) ? vmf_uri_parse(wrapped, error) : NULL;
}

static VmfSession *listen_at(const VmfUri *uri, VmfRamBlocks *blocks, GError **error)
{
    VmfListener *listener = vmf_listener_new(uri, error);
    VmfSession *session;

    if (!listener) {
        return NULL;
    }
    g_print("listening on %s\n", vmf_listener_address(listener));
    session = vmf_session_accept(listener, blocks, NULL, error);
    vmf_listener_free(listener); /* the session keeps what it needs of it */
    return session;
}

static void *complete_main(void *opaque)
{
    GError *error = NULL;

    vmf_session_complete(opaque, &error);
    return error;
}

static bool step_of(const char *name, Step *step)
{
    static const struct {
        const char *name;
        Step step;
    } known[] = {
        {"before-go", {VMF_ROLE_SOURCE, STEP_NEXT_LOOK, MESSAGE_LOADED}},
        {"go", {VMF_ROLE_SOURCE, STEP_BEFORE_SEND, MESSAGE_GO}},
        {"go-out", {VMF_ROLE_SOURCE, STEP_AFTER_SEND, MESSAGE_GO}},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        if (g_str_equal(known[i].name, name)) {
            *step = known[i].step;
            return true;
        }
    }
    return false;
}

/* At the step the command runs, then the session goes on. */
static bool run_in_the_middle(const Step *step, VmfSession *session, const char *command,
                              GError **error)
{
    GThread *thread;

    stepper_stop_at(step);
    thread = g_thread_new("complete", complete_main, session);
    if (!stepper_await()) {
        g_printerr("the step was not reached\n");
    } else if (system(command) != 0) {
        g_printerr("%s failed\n", command);
    }
    stepper_go_on();
    *error = g_thread_join(thread);
    return !*error;
}

static int report(VmfSession *session, const GError *error)
{
    static const char *const names[] = {"?", "this side", "the other side", "unknown"};

    if (error) {
        g_print("%s\n", error->message);
    }
    if (session) {
        g_print("owner: %s\n", names[vmf_session_get_owner(session)]);
    }
    vmf_session_free(session);
    return session ? 0 : 1;
}

int main(int argc, char **argv)
{
    g_autofree uint8_t *ram = g_malloc0(RAM_BYTES + 4096);
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfUri) uri = NULL;
    VmfSession *session = NULL;
    Step step;

    if (argc < 3 || (argc > 3 && (argc != 5 || !step_of(argv[3], &step)))) {
        g_printerr("handover-peer listen URI | connect URI before-go|go|go-out COMMAND\n");
        return 2;
    }
    uri = step_uri(argv[2], &error);
    if (uri &&
        vmf_ram_blocks_add(blocks, "ram", (uint8_t *)(((uintptr_t)ram + 4095) & ~(uintptr_t)4095),
                           RAM_BYTES, 4096, &error)) {
        session = g_str_equal(argv[1], "listen") ? listen_at(uri, blocks, &error)
                                                 : vmf_session_connect(uri, blocks, NULL, &error);
    }
    if (session && argc == 5) {
        run_in_the_middle(&step, session, argv[4], &error);
    } else if (session) {
        vmf_session_complete(session, &error);
    }
    return report(session, error);
}
