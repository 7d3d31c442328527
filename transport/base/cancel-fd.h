/* SPDX-License-Identifier: BSD-2-Clause */
/* cancel-fd.h -- the descriptor of a GCancellable, without an abort when there are no more */

#ifndef VMF_CANCEL_FD_H
#define VMF_CANCEL_FD_H

#include <gio/gio.h>

/*
 * Like g_cancellable_get_fd(), which ends the process when it gets no descriptor: that process is
 * a VMM with its VM. Returns -1 with errno when hardly any are left, in which case a session
 * could not be made anyway. Later calls for the same GCancellable need no new one.
 */
int cancel_fd_get(GCancellable *cancellable);

#endif
