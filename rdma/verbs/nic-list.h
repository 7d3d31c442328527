/* SPDX-License-Identifier: BSD-2-Clause */
/* nic-list.h -- which RDMA devices this host has, for whoever named another address */

#ifndef VMF_RDMA_NIC_LIST_H
#define VMF_RDMA_NIC_LIST_H

/*
 * For the error of who asked for an address that no device has: the RDMA devices that there are.
 * Each comes with its addresses, or with the reason why this process cannot open it. Caller frees.
 */
char *nic_list(void);

#endif
