/* SPDX-License-Identifier: BSD-2-Clause */
/* preload-helper.c -- a library that calls librdmacm itself, as a plugin of the process does */

#include "preload-helper.h"

/* Not the last thing that they do: the call must come from this library. */
#define KEEP_CALLER(value) __asm__ volatile("" : "+r"(value))

struct rdma_event_channel *helper_create_event_channel(void)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();

    KEEP_CALLER(channel);
    return channel;
}

int helper_getaddrinfo(const char *node, struct rdma_addrinfo **info)
{
    int error = rdma_getaddrinfo(node, "1", NULL, info);

    KEEP_CALLER(error);
    return error;
}
