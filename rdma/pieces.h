/* SPDX-License-Identifier: BSD-2-Clause */
/* pieces.h -- what both sides ask about pieces of device state */

#ifndef VMF_RDMA_PIECES_H
#define VMF_RDMA_PIECES_H

#include <stdbool.h>

struct RdmaConn;

/* Whether this side agrees that pieces are written where they belong, without copies. */
bool pieces_may_be_written(const struct RdmaConn *conn);

#endif
