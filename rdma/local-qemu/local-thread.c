/* SPDX-License-Identifier: BSD-2-Clause */
/* local-thread.c -- threads of migrations, in a process that must not end for want of one */

#include "local-thread.h"

#include "local-report.h"

GThread *local_thread_new(const char *name, GThreadFunc main, void *opaque)
{
    g_autoptr(GError) error = NULL;
    GThread *thread = g_thread_try_new(name, main, opaque, &error);

    if (!thread) {
        local_report("cannot start a thread: %s", error->message);
    }
    return thread;
}

void local_thread_end(GThread *thread)
{
    if (thread) {
        g_thread_join(thread);
    }
}
