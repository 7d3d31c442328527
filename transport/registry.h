/* SPDX-License-Identifier: BSD-2-Clause */
/* registry.h -- checking a transport's table, for the registry and its tests */

#ifndef VMF_REGISTRY_H
#define VMF_REGISTRY_H

#include <vmferry/transport.h>

/* `where' names the table in the error. */
bool registry_check(const VmfTransport *transport, const char *where, GError **error);

#endif
