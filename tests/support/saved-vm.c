/* SPDX-License-Identifier: BSD-2-Clause */
/* saved-vm.c -- a small VM as QEMU migrates it into a file, for the tests */

#include "saved-vm.h"

#include <string.h>

#include "stream-bytes.h"

static void put_pages(GByteArray *out, unsigned pages, guint8 content)
{
    for (unsigned i = 0; i < pages; i++) {
        guint8 page[VMF_QEMU_PAGE_BYTES];

        put_be64(out, (guint64)i * VMF_QEMU_PAGE_BYTES |
                          (i % 3 ? VMF_QEMU_RAM_PAGE : VMF_QEMU_RAM_ZERO) |
                          (i ? VMF_QEMU_RAM_CONTINUE : 0));
        if (i == 0) {
            put_name(out, "pc.ram");
        }
        memset(page, content + (guint8)(i % 5), sizeof(page));
        if (i % 3) {
            put(out, page, sizeof(page));
        } else {
            put_byte(out, 0);
        }
    }
}

GByteArray *saved_vm_new(unsigned pages, guint8 content, gboolean footers, gboolean description)
{
    static const char json[] = "{\"configuration\":{},\"page_size\":4096,\"devices\":[]}";
    static const char device[24] = "a device's state";
    GByteArray *out = g_byte_array_new();

    put_be32(out, VMF_QEMU_STREAM_MAGIC);
    put_be32(out, VMF_QEMU_STREAM_VERSION);
    put_byte(out, VMF_QEMU_SECTION_START);
    put_be32(out, 2);
    put_name(out, "ram");
    put_be32(out, 0);
    put_be32(out, VMF_QEMU_RAM_VERSION);
    put_be64(out, (guint64)pages * VMF_QEMU_PAGE_BYTES | VMF_QEMU_RAM_MEM_SIZE);
    put_name(out, "pc.ram");
    put_be64(out, (guint64)pages * VMF_QEMU_PAGE_BYTES);
    put_be64(out, VMF_QEMU_RAM_EOS);
    end_section(out, 2, footers);
    put_byte(out, VMF_QEMU_SECTION_END);
    put_be32(out, 2);
    put_pages(out, pages, content);
    put_be64(out, VMF_QEMU_RAM_EOS);
    end_section(out, 2, footers);
    put_byte(out, VMF_QEMU_SECTION_FULL);
    put_be32(out, 3);
    put_name(out, "timer");
    put_be32(out, 0);
    put_be32(out, 2);
    put(out, device, sizeof(device)); /* it ends with zeros */
    end_section(out, 3, footers);
    put_byte(out, VMF_QEMU_SECTION_EOF);
    if (description) {
        put_byte(out, VMF_QEMU_SECTION_VMDESC);
        put_be32(out, sizeof(json) - 1);
        put(out, json, sizeof(json) - 1);
    }
    return out;
}
