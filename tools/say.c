/* SPDX-License-Identifier: BSD-2-Clause */
/* say.c -- standard output that may fail: the disk is full, or its reader is gone */

#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <vmferry/error.h>

void say_init(void)
{
    int fd;

    do { /* open() returns the lowest free descriptor */
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

bool say(const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_print("%s", text);
    return say_check(NULL);
}

bool say_check(GError **error)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return true;
    }
    g_set_error(error, VMF_ERROR, VMF_ERROR_IO,
                "cannot write to standard output (is the disk full, or its reader gone?)");
    return false;
}
