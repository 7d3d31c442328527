/* SPDX-License-Identifier: BSD-2-Clause */
/* session-host.h -- what transports call of the engine */

#ifndef VMF_SESSION_HOST_H
#define VMF_SESSION_HOST_H

#include <vmferry/plugin/transport.h>

/* The table for every connection that a session has, or that asks for one. */
extern const VmfConnHost session_host;

#endif
