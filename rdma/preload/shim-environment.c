/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-environment.c -- the preloaded library is for this process, not for those that it starts */

#include "shim.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Whether an entry is a path of the library, or its name alone. */
static bool names(const char *entry, size_t length, const char *own)
{
    const size_t rest = length - strlen(own);

    return length >= strlen(own) && !strncmp(entry + rest, own, strlen(own)) &&
           (!rest || entry[rest - 1] == '/');
}

/* The entries are separated by spaces or colons. Every entry of another library stays. */
static void take_out(char *list, const char *own)
{
    const char *from = list;
    char *to = list;

    while (*from) {
        const size_t length = strcspn(from, ": "), gap = strspn(from + length, ": ");

        if (!names(from, length, own)) {
            memmove(to, from, length + gap);
            to += length + gap;
        }
        from += length + gap;
    }
    while (to > list && strchr(": ", to[-1])) {
        to--;
    }
    *to = '\0';
}

/*
 * A program without librdmacm only starts the one that is meant: timeout(1) or a shell. There the
 * environment stays as it is.
 */
__attribute__((constructor)) static void leave_environment(void)
{
    const char *list = getenv("LD_PRELOAD");
    char *others;
    Dl_info self;

    if (!list || !dlsym(RTLD_NEXT, "rdma_create_id") || !dladdr(&base_name, &self) ||
        !self.dli_fname) {
        return;
    }
    others = strdup(list);
    if (!others) {
        return;
    }
    take_out(others, base_name(self.dli_fname));
    if (!*others) {
        unsetenv("LD_PRELOAD");
    } else if (strcmp(others, list) != 0) {
        setenv("LD_PRELOAD", others, 1);
    }
    free(others);
}
