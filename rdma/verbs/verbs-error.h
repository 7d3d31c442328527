/* SPDX-License-Identifier: BSD-2-Clause */
/* verbs-error.h -- the error of a verbs or rdma_cm call that failed */

#ifndef VMF_RDMA_VERBS_ERROR_H
#define VMF_RDMA_VERBS_ERROR_H

#include <glib.h>

/*
 * Sets *error to "TEXT: STRERROR". The format makes TEXT, and STRERROR names `err'. The code is
 * `code'. But it is VMF_ERROR_IO if the process is out of descriptors.
 */
void verbs_set_error(GError **error, int code, int err, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

#endif
