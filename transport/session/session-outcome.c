/* SPDX-License-Identifier: BSD-2-Clause */
/* session-outcome.c -- what happens to the hand-over, and how it ended */

#include "session-outcome.h"

#include "session-waking.h"
#include "session-peer.h"

/* --- events --- */

bool session_event_locked(VmfSession *s, HandoverEvent event)
{
    const HandoverState before = s->peer.handover.state;
    const bool ok = handover_event(&s->peer.handover, event);

    if (s->peer.handover.state != before) {
        s->peer.answer_since = g_get_monotonic_time();
    }
    g_cond_broadcast(&s->core.changed);
    session_wake_control_locked(s);
    return ok;
}

bool session_event(VmfSession *s, HandoverEvent event)
{
    bool ok;

    g_mutex_lock(&s->core.lock);
    ok = session_event_locked(s, event);
    g_mutex_unlock(&s->core.lock);
    return ok;
}

VmfOwner vmf_session_get_owner(VmfSession *s)
{
    VmfOwner owner;

    g_mutex_lock(&s->core.lock);
    owner = handover_owner(&s->peer.handover);
    g_mutex_unlock(&s->core.lock);
    return owner;
}

/* --- the outcome --- */

static const char destination_is_unsure[] =
    "everything is loaded, but the source was lost before it said GO, and has not come back: "
    "outcome unknown. The VM must stay stopped here: the source owns it, unless the source "
    "reports that GO was sent; then look at both sides and run it on one";

/* Keeps the outcome as it is first reported. */
static void note_outcome_locked(VmfSession *s)
{
    const char *lost = s->core.error ? s->core.error->message : "no reason";

    if (s->peer.outcome) {
        return;
    }
    if (s->peer.handover.state == HANDOVER_LEFT_OPEN || s->peer.handover.state == HANDOVER_UNSURE) {
        s->peer.outcome =
            g_error_new(VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME, "%s (%s)",
                        s->peer.handover.state == HANDOVER_UNSURE ? destination_is_unsure
                                                                  : s->peer_ops->source_is_unsure,
                        lost);
    } else if (s->peer.handover.state == HANDOVER_KEPT && s->peer.handover.asked) {
        s->peer.outcome =
            g_error_new(VMF_ERROR, VMF_ERROR_PEER_LOST,
                        "%s; asked again, the destination says that it does not run the "
                        "VM and never will: this side owns it",
                        lost);
    }
}

bool session_outcome(VmfSession *s, GError **error)
{
    g_autoptr(GError) reason = NULL;

    g_mutex_lock(&s->core.lock);
    if (!handover_succeeded(&s->peer.handover)) {
        note_outcome_locked(s);
        if (s->peer.outcome || s->core.error) {
            reason = g_error_copy(s->peer.outcome ? s->peer.outcome : s->core.error);
        }
    }
    g_mutex_unlock(&s->core.lock);
    if (reason) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    return true;
}

bool vmf_session_check(VmfSession *s, GError **error)
{
    return !session_failed(s) || session_outcome(s, error);
}
