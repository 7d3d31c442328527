/* SPDX-License-Identifier: BSD-2-Clause */
/* local-thread.h -- threads of migrations, in a process that must not end for want of one */

#ifndef VMF_RDMA_LOCAL_THREAD_H
#define VMF_RDMA_LOCAL_THREAD_H

#include <glib.h>

/* NULL: there is no thread, and QEMU's user has been told. Joined by local_thread_end(). */
GThread *local_thread_new(const char *name, GThreadFunc main, void *opaque);
/* Waits for its end. NULL is allowed. */
void local_thread_end(GThread *thread);

#endif
