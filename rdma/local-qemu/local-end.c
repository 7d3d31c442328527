/* SPDX-License-Identifier: BSD-2-Clause */
/* local-end.c -- ending migrations after QEMU has let go of them */

#include "local-end.h"

#include <stdlib.h>

#include "local-discards.h"
#include "local-giving.h"
#include "local-report.h"
#include "local-return.h"
#include "local-thread.h"
#include "stream-end.h"

/* The longest time for which the end of the process waits: longer than any end takes. */
#define EXIT_WAIT_US (60 * G_TIME_SPAN_SECOND)

static struct {
    GMutex lock;
    GCond changed;
    unsigned running;
    bool registered;
} ends;

void local_end_await(void)
{
    const gint64 until = g_get_monotonic_time() + EXIT_WAIT_US;

    g_mutex_lock(&ends.lock);
    while (ends.running && g_cond_wait_until(&ends.changed, &ends.lock, until)) {
    }
    g_mutex_unlock(&ends.lock);
}

typedef struct End {
    void (*end)(void *opaque);
    void *opaque;
} End;

static void *end_main(void *opaque)
{
    g_autofree End *end = opaque;

    end->end(end->opaque);
    g_mutex_lock(&ends.lock);
    ends.running--;
    g_cond_broadcast(&ends.changed);
    g_mutex_unlock(&ends.lock);
    return NULL;
}

void local_end_run(const char *name, void (*function)(void *opaque), void *opaque)
{
    End *end = g_new(End, 1);
    g_autoptr(GError) error = NULL;
    GThread *thread;

    *end = (End){.end = function, .opaque = opaque};
    g_mutex_lock(&ends.lock);
    if (!ends.registered) {
        ends.registered = atexit(local_end_await) == 0;
    }
    ends.running++;
    g_mutex_unlock(&ends.lock);
    thread = g_thread_try_new(name, end_main, end, &error);
    if (thread) {
        g_thread_unref(thread);
    } else {
        end_main(end); /* it must be ended in good order, so QEMU waits */
    }
}

/*
 * Whether the stream has ended without a description, which no one can see before QEMU hangs up.
 * With a return path QEMU hangs up after SHUT alone, and there was none. QEMU also hangs up after a
 * failure that it does not tell, such as a device that cannot be saved.
 */
static bool ended_unseen(const LocalSource *s)
{
    return s->session && s->giving == GIVING_NOT && !s->failed && !s->said_error &&
           !s->back_reader && vmf_qemu_stream_ram_ended(s->stream) &&
           stream_end_bare(s->rest->data, s->rest->len, s->footers);
}

static void give_late(LocalSource *s)
{
    g_autoptr(GError) error = NULL;

    if (!vmf_session_complete(s->session, &error)) {
        local_report("%s", error->message);
    }
}

static void end_source(void *opaque)
{
    LocalSource *s = opaque;

    if (s->giver) {
        g_thread_join(s->giver);
    } else if (ended_unseen(s)) {
        give_late(s);
    }
    /* Whoever still reads must end. A VM that was given away stays so. */
    if (s->session &&
        (s->back_reader || vmf_session_get_owner(s->session) == VMF_OWNER_THIS_SIDE)) {
        vmf_session_cancel(s->session);
    }
    local_thread_end(s->back_reader);
    vmf_file_free(s->back_file);
    vmf_session_free(s->session);
    local_discards_remove(s->blocks);
    local_source_unref(s);
}

void local_end_source(LocalSource *s)
{
    local_return_withdraw(s);
    local_thread_end(s->connector);
    giving_give_up(s);
    g_mutex_lock(&s->lock);
    s->closing = true;
    s->link = NULL;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    local_end_run("vmferry-end", end_source, s);
}
