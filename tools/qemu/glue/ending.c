/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads that end sessions. The process waits for them before it ends. */

#include "glue.h"

#include "compat.h"

/* How long a destination that runs the VM waits for the source to close the connection. */
#define HANG_UP_MS 10000

static struct {
    GMutex lock;
    GCond changed;
    unsigned running;
    Notifier exit;
} enders;

static void enders_await(Notifier *notifier, void *data)
{
    g_mutex_lock(&enders.lock);
    while (enders.running) {
        g_cond_wait(&enders.changed, &enders.lock);
    }
    g_mutex_unlock(&enders.lock);
}

typedef struct Ender {
    VmfSession *session;
    VmfFile *back;
    EndHow how;
} Ender;

static void hand_over_to_destination(VmfSession *session)
{
    g_autoptr(GError) error = NULL;

    if (vmf_session_complete(session, &error)) {
        return;
    }
    if (vmf_session_get_owner(session) != VMF_OWNER_THIS_SIDE) {
        error_report("vmferry: %s", error->message);
    } else {
        error_report("vmferry: the destination was lost before it took the VM over, and does "
                     "not run it; it is stopped here (\"cont\" runs it on): %s",
                     error->message);
    }
}

static void await_hang_up(VmfSession *session)
{
    for (int waited = 0; waited < HANG_UP_MS && vmf_session_check(session, NULL); waited += 10) {
        g_usleep(10 * 1000);
    }
}

static void *ender_main(void *opaque)
{
    g_autofree Ender *ender = opaque;

    if (ender->how == END_BY_HANDING_OVER) {
        hand_over_to_destination(ender->session);
    } else if (ender->how == END_AFTER_THE_PEER) {
        await_hang_up(ender->session);
    }
    vmf_file_free(ender->back);
    vmf_session_free(ender->session);
    g_mutex_lock(&enders.lock);
    enders.running--;
    g_cond_broadcast(&enders.changed);
    g_mutex_unlock(&enders.lock);
    return NULL;
}

void session_end(VmfSession *session, VmfFile *back, EndHow how)
{
    g_autoptr(GError) error = NULL;
    Ender *ender = g_new0(Ender, 1);

    ender->session = session;
    ender->back = back;
    ender->how = how;
    if (!enders.exit.notify) { /* only the main thread comes here */
        enders.exit.notify = enders_await;
        qemu_add_exit_notifier(&enders.exit);
    }
    g_mutex_lock(&enders.lock);
    enders.running++;
    g_mutex_unlock(&enders.lock);
    if (!glue_thread("vmferry-end", ender_main, ender, &error)) {
        warn_report("vmferry: %s; QEMU waits until the migration has ended", error->message);
        ender_main(ender); /* it must be ended in good order, so the main loop waits */
    }
}
