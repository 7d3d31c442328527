/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tsan-glib.h -- tells ThreadSanitizer what GLib's locks order. GLib locks by
 * futex, inside a library that is not instrumented, so that without this every
 * access under a lock looks like a race. Included before every source of a
 * -Db_sanitize=thread build, and nowhere else.
 */

#ifndef VMF_TESTS_TSAN_GLIB_H
#define VMF_TESTS_TSAN_GLIB_H

#include <glib.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

static inline void tsan_lock(GMutex *mutex)
{
    g_mutex_lock(mutex);
    __tsan_acquire(mutex);
}

static inline void tsan_unlock(GMutex *mutex)
{
    __tsan_release(mutex);
    g_mutex_unlock(mutex);
}

static inline void tsan_wait(GCond *cond, GMutex *mutex)
{
    __tsan_release(mutex);
    g_cond_wait(cond, mutex);
    __tsan_acquire(mutex);
}

static inline gboolean tsan_wait_until(GCond *cond, GMutex *mutex, gint64 end)
{
    gboolean woken;

    __tsan_release(mutex);
    woken = g_cond_wait_until(cond, mutex, end);
    __tsan_acquire(mutex);
    return woken;
}

#define g_mutex_lock tsan_lock
#define g_mutex_unlock tsan_unlock
#define g_cond_wait tsan_wait
#define g_cond_wait_until tsan_wait_until

#endif
