/* SPDX-License-Identifier: BSD-2-Clause */
/* local-uri.c -- the URI that QEMU's user means */

#include "local-uri.h"

#include <string.h>

#define OPTIONS_VARIABLE "VMFERRY_QEMU_OPTIONS"

static bool add_options(VmfUri *uri, const char *options, GError **error)
{
    g_auto(GStrv) list = g_strsplit(options, ",", -1);

    for (char **option = list; *option; option++) {
        char *value = strchr(*option, '=');

        if (!**option) {
            continue;
        }
        if (!value) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                        "\"%s\" is no option: write NAME=VALUE", *option);
            return false;
        }
        *value++ = '\0';
        if (!vmf_uri_set(uri, *option, value, error)) {
            return false;
        }
    }
    return true;
}

VmfUri *local_uri_new(const char *host, const char *port, bool pin_all, GError **error)
{
    const char *options = strchr(host, ',');
    g_autofree char *name = options ? g_strndup(host, (size_t)(options - host)) : g_strdup(host);
    const bool v6 = strchr(name, ':') != NULL;
    g_autofree char *text =
        g_strdup_printf("rdma:%s%s%s:%s", v6 ? "[" : "", name, v6 ? "]" : "", port);
    const char *general = g_getenv(OPTIONS_VARIABLE);
    g_autoptr(VmfUri) uri = vmf_uri_parse(text, error);

    if (!uri) {
        return NULL;
    }
    if (general && !add_options(uri, general, error)) {
        g_prefix_error(error, OPTIONS_VARIABLE ": ");
        return NULL;
    }
    if (options && !add_options(uri, options + 1, error)) {
        return NULL;
    }
    if (pin_all && !vmf_uri_is_set(uri, "registration") &&
        !vmf_uri_set(uri, "registration", "pin-all", error)) {
        return NULL;
    }
    return g_steal_pointer(&uri);
}
