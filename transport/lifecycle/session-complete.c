/* SPDX-License-Identifier: BSD-2-Clause */
/* session-complete.c -- handing the VM over, after everything is sent or loaded */

#include "device/device-set.h"
#include "session/session-core.h"
#include "session/session-outcome.h"
#include "session/session-peer.h"

bool vmf_session_await_loaded(VmfSession *s, GError **error)
{
    if (s->role != VMF_ROLE_SOURCE || !s->peer_ops->await_loaded) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_UNSUPPORTED,
                    "only a source can wait for LOADED, and stock QEMU does not say it");
        return false;
    }
    if (session_failed(s)) {
        return session_report(s, error);
    }
    return devices_are_done(s->devices, error) && s->peer_ops->await_loaded(s, error);
}

bool vmf_session_complete(VmfSession *s, GError **error)
{
    bool over;

    g_mutex_lock(&s->core.lock);
    over = handover_over(&s->peer.handover);
    g_mutex_unlock(&s->core.lock);
    if (over) {
        return session_outcome(s, error);
    }
    if (session_failed(s)) {
        return session_report(s, error);
    }
    if (!devices_are_done(s->devices, error)) {
        return false;
    }
    return s->role == VMF_ROLE_SOURCE ? s->peer_ops->complete_source(s, error)
                                      : s->peer_ops->complete_destination(s, error);
}
