/* SPDX-License-Identifier: BSD-2-Clause */
/* fake-qemu.c -- a program that is linked as QEMU is, and prints how it was started */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef FAKE_GLIB
#include <glib.h>
#endif
#ifdef FAKE_RDMACM
#include <rdma/rdma_cma.h>
#endif

static void print_library(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4096];

    while (maps && fgets(line, sizeof(line), maps)) {
        const char *path = strchr(line, '/');

        if (path && strstr(path, name)) {
            printf("has %s", path);
            break;
        }
    }
    if (maps) {
        fclose(maps);
    }
}

int main(int argc, char **argv)
{
#ifdef FAKE_GLIB
    if (!g_get_prgname()) {
        g_set_prgname("fake-qemu");
    }
#endif
#ifdef FAKE_RDMACM
    if (argc > 1000) {
        return rdma_destroy_id(NULL);
    }
#endif
    printf("pid %d\n", (int)getpid());
    for (int i = 0; i < argc; i++) {
        printf("argument <%s>\n", argv[i]);
    }
    print_library("/libvmferry-qemu.so");
    print_library("/libm.so.6");
    printf("plugins %s\n", getenv("VMFERRY_PLUGIN_PATH") ? getenv("VMFERRY_PLUGIN_PATH") : "");
    fflush(stdout);
    return system("env | sed 's/^/child /'") != 0;
}
