/* SPDX-License-Identifier: BSD-2-Clause */
/* headroom.h -- how much memory may be taken ahead of need without making it scarce for others */

#ifndef VMF_HEADROOM_H
#define VMF_HEADROOM_H

#include <stdint.h>

/*
 * Bytes that this process may still make resident until only an eighth is left. That eighth is of
 * the host's memory, of a limit of a control group, or of the NUMA nodes of `memory'. The least of
 * all counts. Control groups are the process's own and those above it (v2: memory.max and
 * memory.high; v1: memory.limit_in_bytes). NUMA nodes count if policy or cpusets confine `memory'
 * to some. 0: a limit may exist and cannot be read. /proc and /sys are looked for under `root',
 * which is "" except in tests. Any thread.
 *
 * Sources: proc_meminfo(5); cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v2.rst and
 * cgroup-v1/memory.rst; get_mempolicy(2); cpuset(7); Documentation/ABI/stable/sysfs-devices-node.
 */
uint64_t headroom_bytes(const char *root, const void *memory);

#endif
