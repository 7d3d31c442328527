/* SPDX-License-Identifier: BSD-2-Clause */
/* memory-lock.h -- how much memory this process may pin, and the error when it may not */

#ifndef VMF_RDMA_MEMORY_LOCK_H
#define VMF_RDMA_MEMORY_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef struct MemlockLimit {
    bool unlimited;  /* no limit, or a privilege that lifts it (one of a user namespace does not) */
    uint64_t limit;  /* bytes of RLIMIT_MEMLOCK */
    uint64_t in_use; /* bytes that this process has pinned already */
} MemlockLimit;
/* The limit of this process as it is now. Any thread. */
MemlockLimit memlock_limit(void);
/*
 * Sets *error for a pinning that failed with `err', with the remedy. It is VMF_ERROR_MEMLOCK if the
 * limit is the cause, else VMF_ERROR_DEVICE. `chunked' says that chunks are registered on demand.
 */
void memlock_error(GError **error, int err, uint64_t bytes, const char *what, bool chunked);

#endif
