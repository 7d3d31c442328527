/* SPDX-License-Identifier: BSD-2-Clause */
/* preload-process.c -- what tests ask of their own process, in which a library is preloaded */

#include "preload-process.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <glib.h>

bool process_has_mapped(const char *name)
{
    g_autofree char *maps = NULL;

    g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    return strstr(maps, name);
}

bool process_fd_is_event(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *target = g_file_read_link(path, NULL);

    return target && strstr(target, "eventfd");
}

static int caught = -1, errors = -1;

void process_catch_errors(void)
{
    caught = memfd_create("errors", MFD_CLOEXEC);
    errors = dup(STDERR_FILENO);
    g_assert_true(caught >= 0 && errors >= 0 && dup2(caught, STDERR_FILENO) >= 0);
}

char *process_stop_catching(void)
{
    off_t size = lseek(caught, 0, SEEK_END);
    char *text = g_malloc0((size_t)size + 1);

    g_assert_cmpint(pread(caught, text, (size_t)size, 0), ==, size);
    g_assert_true(dup2(errors, STDERR_FILENO) >= 0);
    close(caught);
    close(errors);
    return text;
}
