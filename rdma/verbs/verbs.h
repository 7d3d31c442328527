/* SPDX-License-Identifier: BSD-2-Clause */
/* verbs.h -- the verbs and rdma_cm calls that can fail, each with its fault point */

#ifndef VMF_RDMA_VERBS_H
#define VMF_RDMA_VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include "base/fault.h"

/*
 * A call that returns a pointer, or an int that is 0 on success. The fault point makes it fail as
 * the real call does, without calling it.
 */
#define VERBS_POINTER(what, call) (VMF_FAULT(what) ? (errno = ENOMEM, NULL) : (call))
#define VERBS_INT(what, call) (VMF_FAULT(what) ? (errno = ENOMEM, ENOMEM) : (call))
/* A call of rdma_cm, which returns -1 and sets errno on failure. */
#define CM_INT(what, call) (VMF_FAULT(what) ? (errno = ENOMEM, -1) : (call))

#endif
