/* SPDX-License-Identifier: BSD-2-Clause */
/* pieces.h -- what both sides ask about pieces of device state */

#ifndef VMF_RDMA_PIECES_H
#define VMF_RDMA_PIECES_H

#include <stdbool.h>

struct RdmaConn;

/*
 * Whether this side allows pieces to be written to their final place, without copies. Any thread.
 */
bool pieces_may_be_written(const struct RdmaConn *conn);

#endif
