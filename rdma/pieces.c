/* SPDX-License-Identifier: BSD-2-Clause */
/* pieces.c -- what both sides ask about pieces of device state */

#include "pieces.h"

#include "rdma-conn.h"
#include "verbs/memory-lock.h"

bool pieces_may_be_written(const RdmaConn *conn)
{
    /* Under a memory-lock limit, all that may be pinned is kept for guest RAM. */
    return conn->options.device_write && memlock_limit().unlimited;
}
