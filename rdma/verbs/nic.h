/* SPDX-License-Identifier: BSD-2-Clause */
/* nic.h -- an RDMA device in use: whether it still works, and what is wrong with it */

#ifndef VMF_RDMA_NIC_H
#define VMF_RDMA_NIC_H

#include <stdbool.h>
#include <gio/gio.h>
#include "verbs.h"

/* Who sleeps longer than that calls nic_check too late. */
#define NIC_CHECK_MS 500

typedef struct Nic Nic;

/*
 * Watches the device that `id' is bound to. Everybody in the process who uses the
 * device shares the answer: there is one reader of its events. Until nic_unwatch the
 * context of rdma_cm's, id->verbs, is not closed, whatever becomes of the id. NULL with
 * *error, also when the device is known to be lost. Every caller calls nic_unwatch once,
 * after it has freed what it had on the device. Any thread.
 */
Nic *nic_watch(struct rdma_cm_id *id, GError **error);
/* The same with the one RDMA device that there is; NULL when there are more, or none. */
Nic *nic_watch_only_device(void);
/* rdma_cm's context of it. */
struct ibv_context *nic_verbs(const Nic *nic);
/* NULL is allowed. The last one lets a removed device go: see nic.c. */
void nic_unwatch(Nic *nic);
/*
 * False with a VMF_ERROR_DEVICE that names the device once it has failed or was removed, to
 * every caller for ever. Does not wait, and looks at the device at most every NIC_CHECK_MS.
 */
bool nic_check(Nic *nic, GError **error);

/*
 * After an operation on `id' has failed: adds to *error what is wrong on this side, if
 * anything is: the device or the address is gone, the port is down. The code becomes
 * VMF_ERROR_DEVICE then. May take a millisecond.
 */
void nic_explain(struct rdma_cm_id *id, GError **error);

/* Whether both are the same IPv4 or IPv6 address, whatever the port; `a' may be NULL: then not. */
bool nic_same_address(const struct sockaddr *a, const struct sockaddr *b);

#endif
