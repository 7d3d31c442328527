/* SPDX-License-Identifier: BSD-2-Clause */
/* session-late-ram.h -- RAM that is named after the session is connected */

#ifndef VMF_SESSION_LATE_RAM_H
#define VMF_SESSION_LATE_RAM_H

#include "session-state.h"

/*
 * If either side names its RAM late, the session begins with the stream alone. When both sides have
 * named their RAM, a thread on each sets it up (SessionPeerOps.set_up_ram). Until then the stream
 * goes on, and whatever needs RAM waits. With stock QEMU there is such a thread on a source alone.
 */

/* Whether this side's set is named late. Any thread. */
bool session_set_is_late(const VmfSession *s);
/* Whether the session began without RAM, because of either side. After the greeting. */
bool session_ram_is_late(const VmfSession *s);
/* Makes the set-up's deadline that of work that begins now. The caller has the lock. */
void session_set_deadline_locked(VmfSession *s);
/*
 * The session begins without RAM. A side whose set is whole has named its RAM with that. The thread
 * that makes the session.
 */
bool session_begin_late(VmfSession *s, GError **error);
/*
 * Starts the thread that sets RAM up if it is due: this side has named its RAM, and a destination
 * has heard the source's names. The control thread and the session's own thread.
 */
void session_late_ram_due(VmfSession *s);
/*
 * Destination of stock QEMU: waits until this side has named its RAM; at once if it was not late.
 * The thread of channel 0.
 */
bool session_await_named(VmfSession *s, GError **error);
/* Waits until RAM is set up; at once if it was not late. The session's own thread. */
bool session_await_ram(VmfSession *s, GError **error);
/* Source: whether RAM is late, and none was saved so far. The session's own thread. */
bool session_ram_is_unused(const VmfSession *s);
/*
 * Source: a set-up that has begun must be over before the last flush, although nobody saves RAM:
 * the destination needs this side for its own. The session's own thread.
 */
bool session_finish_unused_ram(VmfSession *s, GError **error);
/*
 * Returns when no thread sets RAM up any more, and none will. Without a thread it returns at once.
 * The session's own thread.
 */
void session_settle_late_ram(VmfSession *s);

#endif
