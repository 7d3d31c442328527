/* SPDX-License-Identifier: BSD-2-Clause */
/* fault.h -- fault points: in test builds, the Nth acquisition of the process fails */

#ifndef VMF_FAULT_H
#define VMF_FAULT_H

#include <stdbool.h>
#include <vmferry/error.h>

/*
 * Put `if (VMF_FAULT("ibv_reg_mr")) { errno = ENOMEM; goto the usual error path }' at every
 * acquisition, and at every system or verbs call that can fail. Builds without
 * -Dfault_injection=true compile it to false.
 *
 * VMFERRY_FAULT_AT=N makes the Nth point that this process passes fail once, counted from 1.
 * VMFERRY_FAULT_LOG=1 names that point on standard error. So a sweep ends with the first N that
 * prints nothing.
 */
#ifdef VMF_FAULT_INJECTION
VMF_API bool vmf_fault_point(const char *what);
#define VMF_FAULT(what) G_UNLIKELY(vmf_fault_point(what))
#else
#define VMF_FAULT(what) false
#endif

#endif
