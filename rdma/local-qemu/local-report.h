/* SPDX-License-Identifier: BSD-2-Clause */
/* local-report.h -- messages for the user of this process's QEMU */

#ifndef VMF_RDMA_LOCAL_REPORT_H
#define VMF_RDMA_LOCAL_REPORT_H

#include <glib.h>

/* A line on stderr, after "vmferry: ". QEMU's own messages say only that something failed. */
void local_report(const char *format, ...) G_GNUC_PRINTF(1, 2);

#endif
