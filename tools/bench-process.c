/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-process.c -- what this process has used */

#include <string.h>
#include <sys/resource.h>

#include "bench.h"

double bench_cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

uint64_t bench_resident_above(uint64_t ram)
{
    g_autofree char *status = NULL;
    uint64_t peak;
    const char *at;

    if (!g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        return 0;
    }
    at = strstr(status, "\nVmHWM:");
    peak = at ? g_ascii_strtoull(at + strlen("\nVmHWM:"), NULL, 10) * 1024 : 0;
    return peak > ram ? peak - ram : 0;
}
