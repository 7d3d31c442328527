/* SPDX-License-Identifier: BSD-2-Clause */
/* memory-lock.h -- how much memory this process may pin, and the error when it may not */

#ifndef VMF_RDMA_MEMORY_LOCK_H
#define VMF_RDMA_MEMORY_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef struct MemlockLimit {
    bool unlimited;  /* no limit, or a privilege that lifts it (not one of a user namespace) */
    uint64_t limit;  /* bytes of RLIMIT_MEMLOCK */
    uint64_t in_use; /* bytes that this process has pinned already */
} MemlockLimit;
MemlockLimit memlock_limit(void);
/* The error of a pinning that failed, with its remedy. */
void memlock_error(GError **error, int err, uint64_t bytes, const char *what, bool chunked);

#endif
