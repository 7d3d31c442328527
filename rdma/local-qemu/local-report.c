/* SPDX-License-Identifier: BSD-2-Clause */
/* local-report.c -- messages for the user of this process's QEMU */

#include "local-report.h"

void local_report(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_printerr("vmferry: %s\n", text);
}
