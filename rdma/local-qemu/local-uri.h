/* SPDX-License-Identifier: BSD-2-Clause */
/* local-uri.h -- the URI that QEMU's user means */

#ifndef VMF_RDMA_LOCAL_URI_H
#define VMF_RDMA_LOCAL_URI_H

#include <stdbool.h>
#include <vmferry/uri.h>

/*
 * Host and port as QEMU has understood them; options may follow the host after a comma. Those of
 * the variable VMFERRY_QEMU_OPTIONS come before, so that the host's win. With `pin_all', pinning
 * all is what is done unless an option says otherwise. The caller owns the URI. NULL with *error.
 */
VmfUri *local_uri_new(const char *host, const char *port, bool pin_all, GError **error);

#endif
