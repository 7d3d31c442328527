/* SPDX-License-Identifier: BSD-2-Clause */
/* preload-process.h -- what tests ask of their own process, in which a library is preloaded */

#ifndef VMF_TESTS_PRELOAD_PROCESS_H
#define VMF_TESTS_PRELOAD_PROCESS_H

#include <stdbool.h>

/* Whether a file of that name is mapped. */
bool process_has_mapped(const char *name);
/* Whether a descriptor is one of an event, and not of a device. */
bool process_fd_is_event(int fd);
/* Catches what is written to standard error until process_stop_catching(), which returns it. */
void process_catch_errors(void);
char *process_stop_catching(void);

#endif
