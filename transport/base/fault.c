/* SPDX-License-Identifier: BSD-2-Clause */
/* fault.c -- fault points, see fault.h */

#include "fault.h"

#ifdef VMF_FAULT_INJECTION

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* Only in test builds: the counter that a sweep steers from outside. */
static atomic_ulong passed;

bool vmf_fault_point(const char *what)
{
    const char *at = g_getenv("VMFERRY_FAULT_AT");

    if (!at || atomic_fetch_add(&passed, 1) + 1 != strtoul(at, NULL, 10)) {
        return false;
    }
    if (g_getenv("VMFERRY_FAULT_LOG")) {
        g_printerr("fault injected in process %d: %s\n", (int)getpid(), what);
    }
    return true;
}

#else
typedef int vmf_fault_not_compiled_in;
#endif
