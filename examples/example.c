/* SPDX-License-Identifier: BSD-2-Clause */
/* example.c -- the example of README.md: a "VM" with one register moves between two processes */

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <vmferry/vmferry.h>

int main(int argc, char **argv)
{
    const size_t size = 16 << 20, page = 4096;
    uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmfRamBlocks) blocks = vmf_ram_blocks_new();
    const VmfRamBlock *block = vmf_ram_blocks_add(blocks, "ram", ram, size, page, &error);
    g_autoptr(VmfUri) uri = block && argc == 3 ? vmf_uri_parse(argv[2], &error) : NULL;
    g_autoptr(VmfListener) listener = NULL;
    g_autoptr(VmfSession) session = NULL;

    if (uri && strcmp(argv[1], "send") == 0) {
        session = vmf_session_connect(uri, blocks, NULL, &error);
        for (size_t at = 0; session && at < size; at += page) {
            memset(ram + at, (int)(at / page), page);
            vmf_save_ram_page(vmf_session_get_file(session), block, at, page);
        }
        if (session) {
            vmf_flush_ram_pages(vmf_session_get_file(session), VMF_FLUSH_ROUND);
            vmf_put_be32(vmf_session_get_file(session), 0xcafe); /* device state */
        }
    } else if (uri && (listener = vmf_listener_new(uri, &error))) {
        session = vmf_session_accept(listener, blocks, NULL, &error);
        if (session) { /* these bytes come only when the RAM sent before them is here */
            printf("register %x\n", vmf_get_be32(vmf_session_get_file(session)));
        }
    }
    if (!session || !vmf_session_complete(session, &error)) {
        fprintf(stderr, "failed: %s\n", error ? error->message : "usage: example send|receive URI");
        return 1;
    }
    printf("%s\n", listener ? "the VM is mine, it may run" : "the VM is theirs");
    return 0;
}
