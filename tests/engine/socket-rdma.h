/* SPDX-License-Identifier: BSD-2-Clause */
/* socket-rdma.h -- a transport rdma: over UNIX domain sockets, for machines without a device */

#ifndef VMF_TESTS_SOCKET_RDMA_H
#define VMF_TESTS_SOCKET_RDMA_H

#include <glib.h>
#include <stdbool.h>

/*
 * Registers it. "rdma:HOST:PORT" is the socket PORT in the folder, whatever the host is. Call it
 * once, before everything else.
 */
void socket_rdma_register(const char *directory);
/* While true, every connection is broken for both sides, and no new one can be made. */
void socket_rdma_cut(bool cut);
/* How many URIs asked for registration=pin-all when they connected. */
unsigned socket_rdma_pinned(void);

#endif
