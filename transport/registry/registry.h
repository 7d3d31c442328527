/* SPDX-License-Identifier: BSD-2-Clause */
/* registry.h -- checking a transport's table, for the registry and its tests */

#ifndef VMF_REGISTRY_H
#define VMF_REGISTRY_H

#include <vmferry/plugin/transport.h>

/* `where' names the table in the error. */
bool registry_check(const VmfTransport *transport, const char *where, GError **error);
/*
 * Whether a connection that `transport' made can be used: it has room for what the engine
 * writes, and its own table, if it brought one, has what its kind of peer needs. The error
 * is VMF_ERROR_PLUGIN.
 */
bool registry_check_connection(const VmfConn *conn, const VmfTransport *transport, GError **error);

#endif
