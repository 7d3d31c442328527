/* SPDX-License-Identifier: BSD-2-Clause */
/* headroom.c -- how much memory may be taken ahead of need without making it scarce for others */

#include "headroom.h"

#include <linux/mempolicy.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <glib.h>

#define RESERVE_PART 8 /* one part of RESERVE_PART stays free */
#define UNLIMITED UINT64_MAX

static uint64_t above_reserve(uint64_t free, uint64_t total)
{
    const uint64_t reserve = total / RESERVE_PART;

    return free > reserve ? free - reserve : 0;
}

/* Reads the text of a file. The caller frees it. */
static bool read_text(const char *root, const char *folder, const char *name, char **text)
{
    g_autofree char *path = g_strconcat(root, folder, "/", name, NULL);

    return g_file_get_contents(path, text, NULL, NULL);
}

/* --- the host --- */

/* Reads the number after "name:", which is in kB, as bytes. false: there is none. */
static bool kilobytes(const char *text, const char *name, uint64_t *bytes)
{
    const char *at = strstr(text, name);

    if (!at) {
        return false;
    }
    *bytes = g_ascii_strtoull(at + strlen(name), NULL, 10) * 1024;
    return true;
}

/* The headroom of a meminfo file. `free' is the name of its free memory. */
static uint64_t of_meminfo(const char *root, const char *folder, const char *free)
{
    g_autofree char *text = NULL;
    uint64_t total, bytes;

    if (!read_text(root, folder, "meminfo", &text) || !kilobytes(text, "MemTotal:", &total) ||
        !kilobytes(text, free, &bytes)) {
        return 0;
    }
    return above_reserve(bytes, total);
}

/* --- control groups --- */

/* The files of one version of the memory controller. */
typedef struct Controller {
    const char *folder;
    const char *limits[2];
    const char *used;
} Controller;

static const Controller version_1 = {
    "/sys/fs/cgroup/memory", {"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes"};
static const Controller version_2 = {
    "/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current"};

/* Reads a number of bytes, or "max". */
static bool read_bytes(const char *root, const char *folder, const char *name, uint64_t *bytes)
{
    g_autofree char *text = NULL;

    if (!read_text(root, folder, name, &text)) {
        return false;
    }
    *bytes = g_ascii_isdigit(*text) ? g_ascii_strtoull(text, NULL, 10) : UNLIMITED;
    return true;
}

/*
 * The headroom of one group. The root has no files, and neither has a group without the controller.
 */
static uint64_t of_group(const char *root, const char *folder, const Controller *controller)
{
    uint64_t limit = UNLIMITED, used;

    for (unsigned i = 0; i < G_N_ELEMENTS(controller->limits); i++) {
        uint64_t this_one;

        if (controller->limits[i] && read_bytes(root, folder, controller->limits[i], &this_one)) {
            limit = MIN(limit, this_one);
        }
    }
    if (limit == UNLIMITED) {
        return UNLIMITED;
    }
    if (!read_bytes(root, folder, controller->used, &used) || used >= limit) {
        return 0;
    }
    return above_reserve(limit - used, limit);
}

/* The headroom of a group and of all groups above it. `path' is as in /proc/self/cgroup. */
static uint64_t of_groups(const char *root, const char *path, const Controller *controller)
{
    g_autofree char *folder = g_strconcat(controller->folder, path, NULL);
    g_autofree char *whole = g_strconcat(root, folder, NULL);
    g_autofree char *own = g_strconcat(root, controller->folder, "/", controller->used, NULL);
    const size_t top = strlen(controller->folder);
    uint64_t least = UNLIMITED;

    if (!g_file_test(whole, G_FILE_TEST_IS_DIR)) {
        /*
         * In a container the process may see its own group in the place of the root, or no group.
         */
        return g_file_test(own, G_FILE_TEST_EXISTS) ? of_group(root, controller->folder, controller)
                                                    : 0;
    }
    for (;;) {
        const uint64_t here = of_group(root, folder, controller);
        char *slash = strrchr(folder + top, '/');

        least = MIN(least, here);
        if (!slash) {
            return least;
        }
        *slash = '\0';
    }
}

/* This process's group in the hierarchy of a controller, or ("") in that of version 2; or NULL. */
static char *path_of(const char *text, const char *controller)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", 3); /* hierarchy, controllers, path */

        if (g_strv_length(fields) == 3) {
            g_auto(GStrv) controllers = g_strsplit(fields[1], ",", -1);

            if (*controller ? g_strv_contains((const char *const *)controllers, controller)
                            : !*fields[1]) {
                return g_strdup(fields[2]);
            }
        }
    }
    return NULL;
}

static uint64_t of_control_groups(const char *root)
{
    g_autofree char *text = NULL, *path = NULL;

    if (!read_text(root, "/proc/self", "cgroup", &text)) {
        return UNLIMITED; /* a kernel without control groups */
    }
    /*
     * The memory controller is in one hierarchy alone: in version 2's if none of version 1 has it.
     */
    path = path_of(text, "memory");
    if (path) {
        return of_groups(root, path, &version_1);
    }
    path = path_of(text, "");
    return path ? of_groups(root, path, &version_2) : UNLIMITED;
}

/* --- NUMA nodes --- */

#define NODES_MAX 1024
#define WORD_BITS (8 * sizeof(unsigned long))

typedef struct Nodes {
    unsigned long bits[NODES_MAX / WORD_BITS];
} Nodes;

static bool has_node(const Nodes *nodes, unsigned node)
{
    return nodes->bits[node / WORD_BITS] >> (node % WORD_BITS) & 1;
}

/* Numbers and ranges, as in "0-1,4". */
static Nodes parse_nodes(const char *text)
{
    Nodes nodes = {0};

    while (g_ascii_isdigit(*text)) {
        char *end;
        uint64_t first = g_ascii_strtoull(text, &end, 10);
        uint64_t last = *end == '-' ? g_ascii_strtoull(end + 1, &end, 10) : first;

        for (uint64_t node = first; node <= last && node < NODES_MAX; node++) {
            nodes.bits[node / WORD_BITS] |= 1ul << (node % WORD_BITS);
        }
        text = *end == ',' ? end + 1 : "";
    }
    return nodes;
}

/* The nodes that this process may use: all of them if there are no cpusets. */
static Nodes allowed_nodes(const char *root, const Nodes *all)
{
    static const char name[] = "Mems_allowed_list:\t";
    g_autofree char *text = NULL;
    const char *at;

    if (!read_text(root, "/proc/self", "status", &text) || !(at = strstr(text, name))) {
        return *all;
    }
    return parse_nodes(at + strlen(name));
}

/* Takes off `nodes' those that the memory's policy forbids. */
static void apply_policy(const void *memory, Nodes *nodes)
{
    Nodes bound = {0};
    int mode = MPOL_DEFAULT;

    if (syscall(SYS_get_mempolicy, &mode, bound.bits, (unsigned long)NODES_MAX, memory,
                (unsigned long)MPOL_F_ADDR) < 0 ||
        (mode & ~MPOL_MODE_FLAGS) != MPOL_BIND) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bound.bits); i++) {
        nodes->bits[i] &= bound.bits[i];
    }
}

static uint64_t of_node(const char *root, unsigned node)
{
    g_autofree char *folder = g_strdup_printf("/sys/devices/system/node/node%u", node);

    return of_meminfo(root, folder, "MemFree:");
}

/* Memory that may lie on every node is limited by the host's number alone. */
static uint64_t of_nodes(const char *root, const void *memory)
{
    g_autofree char *text = NULL;
    Nodes all, usable;
    bool confined = false;
    uint64_t sum = 0;

    if (!read_text(root, "/sys/devices/system/node", "has_memory", &text)) {
        return UNLIMITED; /* a kernel without NUMA */
    }
    all = parse_nodes(text);
    usable = allowed_nodes(root, &all);
    apply_policy(memory, &usable);
    for (unsigned node = 0; node < NODES_MAX; node++) {
        if (has_node(&all, node) && has_node(&usable, node)) {
            sum += of_node(root, node);
        }
        confined |= has_node(&all, node) && !has_node(&usable, node);
    }
    return confined ? sum : UNLIMITED;
}

uint64_t headroom_bytes(const char *root, const void *memory)
{
    const uint64_t host = of_meminfo(root, "/proc", "MemAvailable:");
    const uint64_t groups = of_control_groups(root);
    const uint64_t nodes = of_nodes(root, memory);

    return MIN(host, MIN(groups, nodes));
}
