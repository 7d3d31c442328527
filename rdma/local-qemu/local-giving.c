/* SPDX-License-Identifier: BSD-2-Clause */
/* local-giving.c -- the end of a migration away: who runs the VM */

#include "local-giving.h"

#include "local-report.h"
#include "local-shut.h"
#include "local-thread.h"

/* How often QEMU's thread, which waits for GO to leave, looks whether it has. */
#define LOOK_US 100

static void set_giving(LocalSource *s, Giving giving)
{
    g_mutex_lock(&s->lock);
    s->giving = giving;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

/* QEMU may have destroyed the link in the meantime. */
static void complete_held(LocalSource *s, bool ok)
{
    g_mutex_lock(&s->lock);
    if (s->link) {
        local_link_complete(s->link, s->held, ok);
    }
    g_mutex_unlock(&s->lock);
}

static void report_outcome(LocalSource *s, const GError *error)
{
    if (vmf_session_get_owner(s->session) == VMF_OWNER_THIS_SIDE) {
        if (!s->said_error) {
            local_report("the destination does not run the VM: %s", error->message);
        }
    } else {
        local_report("%s", error->message);
    }
}

/* Waits until QEMU takes the completion, or goes another way. */
static bool await_qemu(LocalSource *s)
{
    bool now;

    set_giving(s, GIVING_LOADED);
    complete_held(s, true);
    g_mutex_lock(&s->lock);
    while (s->giving == GIVING_LOADED && !s->given_up) {
        g_cond_wait(&s->changed, &s->lock);
    }
    now = s->giving == GIVING_NOW;
    g_mutex_unlock(&s->lock);
    return now;
}

/* With vmferry: LOADED, then QEMU, then GO. */
static bool give_to_vmferry(LocalSource *s, GError **error)
{
    if (!vmf_session_await_loaded(s->session, error)) {
        complete_held(s, false);
        return false;
    }
    local_shut(s);
    if (!await_qemu(s)) {
        vmf_session_cancel(s->session);
    }
    return vmf_session_complete(s->session, error);
}

/* Stock QEMU has no LOADED. The VM is given away with the last bytes. */
static bool give_to_stock(LocalSource *s, GError **error)
{
    const bool ok = vmf_session_complete(s->session, error);

    complete_held(s, vmf_session_get_owner(s->session) != VMF_OWNER_THIS_SIDE);
    return ok;
}

static void *give_main(void *opaque)
{
    LocalSource *s = opaque;
    g_autoptr(GError) error = NULL;

    if (!(vmf_session_peer_is_qemu(s->session) ? give_to_stock(s, &error)
                                               : give_to_vmferry(s, &error))) {
        report_outcome(s, error);
    }
    set_giving(s, GIVING_OVER);
    return NULL;
}

bool giving_begin(LocalSource *s, uint64_t wr_id)
{
    g_mutex_lock(&s->lock);
    s->held = wr_id;
    s->giver = local_thread_new("vmferry-give", give_main, s);
    s->giving = s->giver ? GIVING_LOADS : GIVING_OVER;
    g_mutex_unlock(&s->lock);
    return s->giver != NULL;
}

/* Returns when GO has left, or never will. */
static void await_go(LocalSource *s)
{
    bool over;

    do {
        g_usleep(LOOK_US);
        g_mutex_lock(&s->lock);
        over = s->giving == GIVING_OVER;
        g_mutex_unlock(&s->lock);
    } while (!over && vmf_session_get_owner(s->session) == VMF_OWNER_THIS_SIDE);
}

void giving_polled(LocalLink *link, struct ibv_wc *wc)
{
    LocalSource *s = link->owner;
    bool now;

    if (wc->opcode != IBV_WC_SEND || wc->status != IBV_WC_SUCCESS) {
        return; /* above all, the many writes take no lock here */
    }
    g_mutex_lock(&s->lock);
    now = s->giving == GIVING_LOADED && wc->wr_id == s->held && !s->given_up;
    if (now) {
        s->giving = GIVING_NOW;
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    if (!now) {
        return;
    }
    await_go(s);
    if (vmf_session_get_owner(s->session) == VMF_OWNER_THIS_SIDE) {
        wc->status = IBV_WC_RETRY_EXC_ERR; /* so QEMU keeps the VM */
    }
}

void giving_give_up(LocalSource *s)
{
    bool loads;

    g_mutex_lock(&s->lock);
    s->given_up = true;
    loads = s->giving == GIVING_LOADS;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    if (loads) {
        vmf_session_cancel(s->session);
    }
}

bool giving_gave(LocalSource *s)
{
    bool began;

    g_mutex_lock(&s->lock);
    began = s->giving == GIVING_NOW || s->giving == GIVING_OVER;
    g_mutex_unlock(&s->lock);
    return began && vmf_session_get_owner(s->session) != VMF_OWNER_THIS_SIDE;
}
