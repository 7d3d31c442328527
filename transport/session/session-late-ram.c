/* SPDX-License-Identifier: BSD-2-Clause */
/* session-late-ram.c -- RAM that is named after the session is connected */

#include "session-late-ram.h"

#include "base/fault.h"
#include "ram/ram-blocks.h"
#include "session-core.h"
#include "session-peer.h"
#include "session-waking.h"

bool session_set_is_late(const VmfSession *s)
{
    return ram_blocks_late(s->blocks.set);
}

bool session_ram_is_late(const VmfSession *s)
{
    return s->late_ram.on;
}

/*
 * A peer that only shows that it lives must not hold this side for ever. On the slowest machines it
 * takes its time to register a large RAM, so RAM gives more time.
 */
#define SETUP_BYTES_PER_SECOND (256ull << 20)

void session_set_deadline_locked(VmfSession *s)
{
    const uint64_t work_us =
        vmf_ram_blocks_total(s->blocks.set) / (SETUP_BYTES_PER_SECOND / G_USEC_PER_SEC);

    s->setup.deadline = g_get_monotonic_time() + s->options.connect_timeout_us +
                        (gint64)MIN(work_us, G_MAXINT64 / 4);
}

/* --- setting up --- */

static void *set_up_main(void *opaque)
{
    VmfSession *s = opaque;
    GError *error = NULL;
    const bool ok = s->peer_ops->set_up_ram(s, &error);

    if (!ok) {
        session_need_error(&error, "setting RAM up");
        session_fail(s, error, false);
    }
    g_mutex_lock(&s->core.lock);
    s->late_ram.state = ok ? LATE_RAM_READY : LATE_RAM_OVER;
    s->setup.done = true;
    session_update_readable_locked(s);
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    return NULL;
}

static bool is_due_locked(const VmfSession *s)
{
    if (!s->late_ram.on || s->late_ram.state != LATE_RAM_NAMED || s->core.error) {
        return false;
    }
    return s->role == VMF_ROLE_SOURCE || (s->peer.blocks_complete && !s->peer_ops->is_qemu);
}

/* Starts the thread. It waits for the lock first of all, so that it finds everything as it is. */
static void start_locked(VmfSession *s, GError **error)
{
    session_set_deadline_locked(s);
    s->late_ram.thread = VMF_FAULT("thread late RAM")
                             ? NULL
                             : g_thread_try_new("vmf-set-up-ram", set_up_main, s, error);
    s->late_ram.state = s->late_ram.thread ? LATE_RAM_SETTING_UP : LATE_RAM_OVER;
    s->setup.done = !s->late_ram.thread;
    session_wake_control_locked(s); /* the set-up has a deadline again */
    g_cond_broadcast(&s->core.changed);
}

void session_late_ram_due(VmfSession *s)
{
    g_autoptr(GError) failure = NULL;
    bool over = false;

    g_mutex_lock(&s->core.lock);
    if (is_due_locked(s)) {
        start_locked(s, &failure);
        over = s->late_ram.state == LATE_RAM_OVER;
    }
    g_mutex_unlock(&s->core.lock);
    if (over) {
        session_fail(s,
                     g_error_new(VMF_ERROR, VMF_ERROR_FAILED,
                                 "cannot start the thread that sets RAM up: %s",
                                 failure ? failure->message : "no reason was given"),
                     false);
    }
}

/* --- naming --- */

/* This side's set is whole from now on. Returns false if it was so before. */
static bool name_ram(VmfSession *s)
{
    const bool keeps = s->blocks.populated && session_set_is_late(s) && !ram_expected_is_free();
    bool first;

    g_mutex_lock(&s->core.lock);
    first = s->late_ram.state == LATE_RAM_UNNAMED;
    s->blocks.keeps = first ? keeps : s->blocks.keeps;
    s->late_ram.state = first ? LATE_RAM_NAMED : s->late_ram.state;
    g_cond_broadcast(&s->core.changed);
    g_mutex_unlock(&s->core.lock);
    session_late_ram_due(s);
    return first;
}

bool session_begin_late(VmfSession *s, GError **error)
{
    g_mutex_lock(&s->core.lock);
    s->setup.done = true;
    g_mutex_unlock(&s->core.lock);
    if (!session_set_is_late(s)) {
        name_ram(s);
    }
    return vmf_session_check(s, error);
}

bool vmf_session_name_ram(VmfSession *s, GError **error)
{
    if (session_failed(s)) {
        return session_report(s, error);
    }
    if (!session_set_is_late(s) || !name_ram(s)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "the RAM of this session was named before, or when the session was made");
        return false;
    }
    return !session_failed(s) || session_report(s, error);
}

/* --- waiting --- */

bool session_await_named(VmfSession *s, GError **error)
{
    const gint64 end = g_get_monotonic_time() + s->options.connect_timeout_us;
    bool named, in_time = true;

    if (!session_ram_is_late(s)) {
        return true;
    }
    g_mutex_lock(&s->core.lock);
    while (s->late_ram.state == LATE_RAM_UNNAMED && !s->core.error && in_time) {
        in_time = g_cond_wait_until(&s->core.changed, &s->core.lock, end);
    }
    named = s->late_ram.state != LATE_RAM_UNNAMED;
    g_mutex_unlock(&s->core.lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    if (!named) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_TIMEOUT,
                    "the source needs this side's RAM blocks, which nobody has named in time (the "
                    "time for it is the option connect-timeout=)");
    }
    return named;
}

bool session_await_ram(VmfSession *s, GError **error)
{
    LateRamState state;

    if (!session_ram_is_late(s) || s->late_ram.awaited) {
        return true;
    }
    g_mutex_lock(&s->core.lock);
    while (s->late_ram.state == LATE_RAM_SETTING_UP && !s->core.error) {
        g_cond_wait(&s->core.changed, &s->core.lock);
    }
    state = s->late_ram.state;
    g_mutex_unlock(&s->core.lock);
    if (session_failed(s)) {
        return session_report(s, error);
    }
    s->late_ram.awaited = state == LATE_RAM_READY;
    if (!s->late_ram.awaited) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "RAM is used before it was named (vmf_session_name_ram())");
    }
    return s->late_ram.awaited;
}

bool session_ram_is_unused(const VmfSession *s)
{
    return session_ram_is_late(s) && !s->late_ram.awaited;
}

bool session_finish_unused_ram(VmfSession *s, GError **error)
{
    bool named;

    g_mutex_lock(&s->core.lock);
    named = s->late_ram.state != LATE_RAM_UNNAMED;
    g_mutex_unlock(&s->core.lock);
    return !named || session_await_ram(s, error);
}

void session_settle_late_ram(VmfSession *s)
{
    GThread *thread;

    if (!session_ram_is_late(s)) {
        return;
    }
    g_mutex_lock(&s->core.lock);
    thread = g_steal_pointer(&s->late_ram.thread);
    if (s->late_ram.state == LATE_RAM_UNNAMED || s->late_ram.state == LATE_RAM_NAMED) {
        s->late_ram.state = LATE_RAM_OVER;
    }
    g_mutex_unlock(&s->core.lock);
    if (thread) {
        g_thread_join(thread);
    }
}
