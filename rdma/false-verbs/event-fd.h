/* SPDX-License-Identifier: BSD-2-Clause */
/* event-fd.h -- a descriptor that is readable while somebody's queue of events is not empty */

#ifndef VMF_RDMA_EVENT_FD_H
#define VMF_RDMA_EVENT_FD_H

#include <stdbool.h>

/* A descriptor that is not readable. -1 with errno. */
int event_fd_new(void);
/* The queue has its first event. Its owner holds the queue's lock, here and in the next one. */
void event_fd_raise(int fd);
/* The queue has lost its last event. */
void event_fd_lower(int fd);
/*
 * Waits until it is readable. false with errno: EAGAIN for a descriptor that the program has made
 * non-blocking. Others may empty the queue before the caller looks.
 */
bool event_fd_wait(int fd);

#endif
