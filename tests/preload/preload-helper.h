/* SPDX-License-Identifier: BSD-2-Clause */
/* preload-helper.h -- a library that calls librdmacm itself, as a plugin of the process does */

#ifndef VMF_TESTS_PRELOAD_HELPER_H
#define VMF_TESTS_PRELOAD_HELPER_H

#include <rdma/rdma_cma.h>

#define HELPER_API __attribute__((visibility("default")))

HELPER_API struct rdma_event_channel *helper_create_event_channel(void);
HELPER_API int helper_getaddrinfo(const char *node, struct rdma_addrinfo **info);

#endif
