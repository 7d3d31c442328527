/* SPDX-License-Identifier: BSD-2-Clause */
/* nic-list.h -- which RDMA devices this host has, as a text for errors */

#ifndef VMF_RDMA_NIC_LIST_H
#define VMF_RDMA_NIC_LIST_H

/*
 * The RDMA devices of this host, for the error about an address that no device has. Each device
 * comes with its addresses, or with the reason why this process cannot open it. The caller frees
 * the text.
 */
char *nic_list(void);

#endif
