/* SPDX-License-Identifier: BSD-2-Clause */
/* registry.h -- checking a transport's table, for the registry and its tests */

#ifndef VMF_REGISTRY_H
#define VMF_REGISTRY_H

#include <vmferry/plugin/transport.h>

/*
 * Whether a transport's table can be used. `where' names the table in the error, which is
 * VMF_ERROR_PLUGIN.
 */
bool registry_check(const VmfTransport *transport, const char *where, GError **error);
/*
 * Whether the engine can use a connection that `transport' made. The connection must have room for
 * what the engine writes. Its own table, if it has one, must have what its kind of peer needs. The
 * error is VMF_ERROR_PLUGIN.
 */
bool registry_check_connection(const VmfConn *conn, const VmfTransport *transport, GError **error);

#endif
