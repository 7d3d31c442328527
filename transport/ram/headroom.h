/* SPDX-License-Identifier: BSD-2-Clause */
/* headroom.h -- how much memory may be taken ahead of need without making it scarce for others */

#ifndef VMF_HEADROOM_H
#define VMF_HEADROOM_H

#include <stdint.h>

/*
 * Bytes that this process may still make resident until only an eighth is left
 * of the host's memory, of a limit of its control group or of one above that
 * (cgroup v2: memory.max and memory.high; v1: memory.limit_in_bytes), or of the NUMA
 * nodes that `memory', by its policy and by cpusets, is confined to: the least of them
 * all. 0 if one of them may be limited and cannot be read. `root' is what /proc and
 * /sys are looked for under: "". Any thread.
 *
 * Sources: proc_meminfo(5); cgroups(7) and the kernel's
 * Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; get_mempolicy(2);
 * cpuset(7); Documentation/ABI/stable/sysfs-devices-node.
 */
uint64_t headroom_bytes(const char *root, const void *memory);

#endif
