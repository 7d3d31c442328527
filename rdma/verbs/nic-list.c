/* SPDX-License-Identifier: BSD-2-Clause */
/* nic-list.c -- which RDMA devices this host has, as a text for errors */

#include "nic-list.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <gio/gio.h>

/*
 * It has an entry for each device that a process can open. The file "ibdev" in the entry names the
 * device.
 */
#define VERBS_CLASS "/sys/class/infiniband_verbs"
#define DEVICE_CLASS "/sys/class/infiniband"

static void add_name(GHashTable *names, const char *name)
{
    if (*name) {
        g_hash_table_add(names, g_strdup(name));
    }
}

static void add_file(GHashTable *names, const char *path)
{
    g_autofree char *text = NULL;

    if (g_file_get_contents(path, &text, NULL, NULL)) {
        add_name(names, g_strstrip(text));
    }
}

/* Adds the name of every entry of a folder, or with `contents' the text in it. */
static void add_folder(GHashTable *names, const char *path, bool contents)
{
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    const char *entry;

    while (folder && (entry = g_dir_read_name(folder))) {
        g_autofree char *file = g_build_filename(path, entry, NULL);

        if (contents) {
            add_file(names, file);
        } else {
            add_name(names, entry);
        }
    }
}

/* The network interfaces whose addresses are the device's. */
static GHashTable *interfaces_of(const char *device)
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *own = g_build_filename(DEVICE_CLASS, device, "device/net", NULL);
    g_autofree char *parent = g_build_filename(DEVICE_CLASS, device, "parent", NULL);
    g_autofree char *ports = g_build_filename(DEVICE_CLASS, device, "ports", NULL);
    g_autoptr(GDir) folder = g_dir_open(ports, 0, NULL);
    const char *port;

    add_folder(names, own, false);
    add_file(names, parent);
    while (folder && (port = g_dir_read_name(folder))) {
        g_autofree char *gids = g_build_filename(ports, port, "gid_attrs/ndevs", NULL);

        add_folder(names, gids, true);
    }
    return names;
}

static void append_addresses(GString *list, const char *device)
{
    g_autoptr(GHashTable) interfaces = interfaces_of(device);
    const char *separator = " with ";
    struct ifaddrs *all = NULL;

    if (getifaddrs(&all)) {
        return;
    }
    for (struct ifaddrs *at = all; at; at = at->ifa_next) {
        const bool v6 = at->ifa_addr && at->ifa_addr->sa_family == AF_INET6;
        char host[NI_MAXHOST];

        if (!at->ifa_addr || (!v6 && at->ifa_addr->sa_family != AF_INET) ||
            !g_hash_table_contains(interfaces, at->ifa_name) ||
            getnameinfo(at->ifa_addr, v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
                        host, sizeof(host), NULL, 0, NI_NUMERICHOST)) {
            continue;
        }
        g_string_append_printf(list, "%s%s", separator, host);
        separator = ", ";
    }
    freeifaddrs(all);
    if (*separator == ' ') {
        g_string_append(list, " without an address");
    }
}

/* Why this process cannot open the device; NULL if it can. */
static char *why_not(const char *uverbs)
{
    g_autofree char *path = g_build_filename("/dev/infiniband", uverbs, NULL);
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        return NULL;
    }
    return g_strdup_printf("%s cannot be opened (%s)", path, g_strerror(errno));
}

char *nic_list(void)
{
    g_autoptr(GDir) folder = g_dir_open(VERBS_CLASS, 0, NULL);
    g_autoptr(GString) list = g_string_new(NULL);
    const char *uverbs;

    while (folder && (uverbs = g_dir_read_name(folder))) {
        g_autofree char *path = g_build_filename(VERBS_CLASS, uverbs, "ibdev", NULL);
        g_autofree char *device = NULL, *closed = NULL;

        if (!g_file_get_contents(path, &device, NULL, NULL)) {
            continue;
        }
        g_string_append_printf(list, "%s%s", list->len ? "; " : "", g_strstrip(device));
        closed = why_not(uverbs);
        if (closed) {
            g_string_append_printf(list, ", but %s", closed);
        } else {
            append_addresses(list, device);
        }
    }
    return list->len ? g_strdup_printf("this host's RDMA devices: %s", list->str)
                     : g_strdup("this host has no RDMA device (see rdma link)");
}
