/* SPDX-License-Identifier: BSD-2-Clause */
/* verbs-error.c -- the error of a verbs or rdma_cm call that failed */

#include "verbs-error.h"

#include <errno.h>
#include <stdarg.h>
#include <vmferry/error.h>

void verbs_set_error(GError **error, int code, int err, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    /* Running out of descriptors is a limit of this process. The device works. */
    if (err == EMFILE || err == ENFILE) {
        code = VMF_ERROR_IO;
    }
    g_set_error(error, VMF_ERROR, code, "%s: %s", text, g_strerror(err));
}
