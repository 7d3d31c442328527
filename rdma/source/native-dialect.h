/* SPDX-License-Identifier: BSD-2-Clause */
/* native-dialect.h -- what a source says on a channel to a vmferry */

#ifndef VMF_RDMA_NATIVE_DIALECT_H
#define VMF_RDMA_NATIVE_DIALECT_H

#include "channel-dialect.h"

extern const ChannelDialect native_dialect;

#endif
