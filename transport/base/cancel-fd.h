/* SPDX-License-Identifier: BSD-2-Clause */
/* cancel-fd.h -- the descriptor of a GCancellable, without an abort if there is none left */

#ifndef VMF_CANCEL_FD_H
#define VMF_CANCEL_FD_H

#include <gio/gio.h>

/*
 * g_cancellable_get_fd() ends the process if it gets no descriptor, and the process is a VMM with
 * its VM. This returns -1 with errno when hardly any descriptors are left; a session could not be
 * made then anyway. GLib needs no new descriptor for later calls with the same GCancellable. The
 * caller releases it by g_cancellable_release_fd(). Any thread.
 */
int cancel_fd_get(GCancellable *cancellable);

#endif
