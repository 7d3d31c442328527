/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-real.c -- the real functions behind the preloaded library, and its messages */

#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void shim_say(const char *format, ...)
{
    const int error = errno;
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "vmferry: %s\n", text);
    errno = error;
}

/*
 * Without a version dlsym() takes the newest one. A library that was loaded for its user alone is
 * not among those that RTLD_NEXT searches.
 */
static void *look_up(const char *name)
{
    const char *library = strncmp(name, "ibv_", 4) ? "librdmacm.so.1" : "libibverbs.so.1";
    void *real = dlsym(RTLD_NEXT, name), *handle;

    if (!real && (handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD))) {
        real = dlsym(handle, name);
        dlclose(handle); /* whoever calls the function keeps the library */
    }
    return real;
}

void *shim_real(void **found, const char *name)
{
    static char missing;
    void *real = __atomic_load_n(found, __ATOMIC_RELAXED);

    if (!real) {
        real = look_up(name);
        if (!real) {
            shim_say("no library of this process has %s", name);
            real = &missing;
        }
        __atomic_store_n(found, real, __ATOMIC_RELAXED);
    }
    if (real == &missing) {
        errno = ENOSYS;
        return NULL;
    }
    return real;
}
