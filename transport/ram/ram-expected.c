/* SPDX-License-Identifier: BSD-2-Clause */
/* ram-expected.c -- where the RAM of a VM will probably be, before the VMM says so */

#include <string.h>

#include "base/fault.h"
#include "mappings.h"
#include "ram-blocks.h"

/*
 * Devices that are assigned to a VM have its pages locked (VFIO) or pinned (vDPA), and both are
 * counted in kilobytes. Source: proc_pid_status(5).
 */
static bool has_zero(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line && g_ascii_strtoull(line + strlen(name), NULL, 10) == 0;
}

static bool memory_is_free(bool pinned_by_us)
{
    g_autofree char *status = NULL;

    return !VMF_FAULT("read status") &&
           g_file_get_contents("/proc/self/status", &status, NULL, NULL) &&
           has_zero(status, "\nVmLck:") && (pinned_by_us || has_zero(status, "\nVmPin:"));
}

bool ram_expected_is_free(void)
{
    return memory_is_free(true);
}

static bool is_likely(const Mapping *mapping)
{
    return mapping->unforked && mapping->readable && mapping->writable && !mapping->shared &&
           !mapping->inode && !mapping->unreserved && !mapping->handed;
}

uint64_t vmf_ram_blocks_expect_unforked(VmfRamBlocks *blocks)
{
    uint64_t bytes = 0;
    Mappings mappings;

    if (!ram_blocks_late(blocks) || !memory_is_free(false)) {
        return 0;
    }
    mappings_read(&mappings);
    for (guint i = 0; i < mappings.list->len; i++) {
        const Mapping *mapping = &g_array_index(mappings.list, Mapping, i);
        const uint64_t length = mapping->to - mapping->from;

        if (is_likely(mapping) &&
            ram_blocks_expect(blocks, (void *)(uintptr_t)mapping->from, length, NULL)) {
            bytes += length;
        }
    }
    mappings_clear(&mappings);
    if (bytes) {
        vmf_ram_blocks_set_discardable(blocks);
    }
    return bytes;
}
