/* SPDX-License-Identifier: BSD-2-Clause */
/* nic.h -- an RDMA device in use: whether it still works, and what is wrong with it */

#ifndef VMF_RDMA_NIC_H
#define VMF_RDMA_NIC_H

#include <stdbool.h>
#include <gio/gio.h>
#include "verbs.h"

/* A thread that sleeps longer than this calls nic_check too late. */
#define NIC_CHECK_MS 500

typedef struct Nic Nic;

/*
 * Watches the device that `id' is bound to. All users of the device in the process share one Nic,
 * because the events of a device have one reader. Until nic_unwatch, rdma_cm's context id->verbs
 * stays open, whatever becomes of the id. NULL with *error, also when the device is known to be
 * lost. Every caller calls nic_unwatch once, after it has freed all that it had on the device. Any
 * thread.
 */
Nic *nic_watch(struct rdma_cm_id *id, GError **error);
/*
 * The same for the only RDMA device of the host. NULL when there are several, when there is none,
 * or on failure.
 */
Nic *nic_watch_only_device(void);
/* rdma_cm's context of the device. */
struct ibv_context *nic_verbs(const Nic *nic);
/*
 * Ends one watch. NULL is allowed. The last call for a removed device lets the device go, see
 * nic.c.
 */
void nic_unwatch(Nic *nic);
/*
 * False with a VMF_ERROR_DEVICE that names the device, once the device has failed or was removed.
 * Every later call by any user fails too. Does not wait. Looks at the device at most once in
 * NIC_CHECK_MS. Any thread.
 */
bool nic_check(Nic *nic, GError **error);

/*
 * Call it after an operation on `id' has failed. If something is wrong on this side, it adds that
 * to *error, and the code becomes VMF_ERROR_DEVICE. The device or the address may be gone, or the
 * port may be down. It may take a millisecond.
 */
void nic_explain(struct rdma_cm_id *id, GError **error);

/* Whether both are the same IPv4 or IPv6 address, whatever the port. False if `a' is NULL. */
bool nic_same_address(const struct sockaddr *a, const struct sockaddr *b);

#endif
