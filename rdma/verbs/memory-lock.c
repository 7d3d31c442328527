/* SPDX-License-Identifier: BSD-2-Clause */
/* memory-lock.c -- how much memory this process may pin, and the error when it may not */

#include "memory-lock.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <vmferry/error.h>

/* A number after "name:" in /proc/self/status; `base' as for strtoull. */
static uint64_t status_number(const char *status, const char *name, int base)
{
    const char *at = strstr(status, name);

    return at ? g_ascii_strtoull(at + strlen(name), NULL, (guint)base) : 0;
}

/*
 * Whether the kernel counts this process's capabilities where it asks for those of the whole
 * machine. A rootless container has a user namespace of its own. There, a process has every
 * capability over that namespace, but none that lifts the memory-lock limit. A kernel without user
 * namespaces has no such file.
 */
static bool in_first_user_namespace(void)
{
    const ino_t first = 0xEFFFFFFDu; /* PROC_USER_INIT_INO, the same in every kernel */
    struct stat namespace;

    return stat("/proc/self/ns/user", &namespace) < 0 || namespace.st_ino == first;
}

MemlockLimit memlock_limit(void)
{
    MemlockLimit result = {.unlimited = true};
    g_autofree char *status = NULL;
    struct rlimit limit;
    const uint64_t cap_ipc_lock = 1ull << 14; /* capabilities(7): lifts the limit */

    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) {
        return result;
    }
    result.limit = limit.rlim_cur;
    if (!g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        return result;
    }
    result.unlimited =
        (status_number(status, "\nCapEff:", 16) & cap_ipc_lock) && in_first_user_namespace();
    result.in_use = status_number(status, "\nVmPin:", 10) * 1024;
    return result;
}

void memlock_error(GError **error, int err, uint64_t bytes, const char *what, bool chunked)
{
    MemlockLimit now = memlock_limit();
    g_autofree char *size = g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *limit = g_format_size_full(now.limit, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *in_use = g_format_size_full(now.in_use, G_FORMAT_SIZE_IEC_UNITS);

    if (err != ENOMEM || now.unlimited) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_DEVICE, "cannot register %s (%s) for RDMA: %s%s",
                    what, size, g_strerror(err),
                    err == EFAULT
                        ? " (it is not mapped for this access, or waits for a userfaultfd "
                          "handler that takes no faults of the kernel)"
                        : "");
        return;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_MEMLOCK,
                "cannot pin %s for %s: the memory-lock limit is %s, of which %s are in use; raise "
                "it (ulimit -l, LimitMEMLOCK= in a systemd unit, /etc/security/limits.conf)%s",
                size, what, limit, in_use,
                chunked ? ", or use fewer channels or a smaller chunk-size"
                        : ", or use registration=chunk");
}
