/* SPDX-License-Identifier: BSD-2-Clause */
/* handover-peer.c -- one side of a hand-over between two hosts, with the link cut in its middle */

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vmferry/vmferry.h>

#include "base/message.h"
#include "session/stepper.h"

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

/* Starting a program for that may take a busy host longer than the link is to be down. */
static bool set_link(const char *device, bool up)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok;

    g_strlcpy(request.ifr_name, device, sizeof(request.ifr_name));
    ok = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0;
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~(int)IFF_UP);
    ok = ok && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (!ok) {
        g_printerr("cannot take %s %s: %s\n", device, up ? "up" : "down", g_strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* At the step the link goes down, then the session goes on, and later the link is back. */
static bool cut_in_the_middle(const Step *step, VmfSession *session, const char *device,
                              unsigned seconds, GError **error)
{
    GThread *thread;
    bool there;

    stepper_stop_at(step);
    thread = g_thread_new("complete", complete_main, session);
    there = stepper_await() && set_link(device, false);
    stepper_go_on();
    if (there) {
        g_usleep(seconds * G_USEC_PER_SEC);
        there = set_link(device, true);
    }
    *error = g_thread_join(thread);
    return there;
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

    if (argc < 3 || (argc > 3 && (argc != 6 || !step_of(argv[3], &step)))) {
        g_printerr("handover-peer listen URI | connect URI before-go|go|go-out DEVICE SECONDS\n");
        return 2;
    }
    uri = step_uri(argv[2], &error);
    if (uri &&
        vmf_ram_blocks_add(blocks, "ram", (uint8_t *)(((uintptr_t)ram + 4095) & ~(uintptr_t)4095),
                           RAM_BYTES, 4096, &error)) {
        session = g_str_equal(argv[1], "listen") ? listen_at(uri, blocks, &error)
                                                 : vmf_session_connect(uri, blocks, NULL, &error);
    }
    if (session && argc == 6) {
        if (!cut_in_the_middle(&step, session, argv[4], (unsigned)atoi(argv[5]), &error)) {
            g_print("the link was not cut there\n");
        }
    } else if (session) {
        vmf_session_complete(session, &error);
    }
    return report(session, error);
}
