/* SPDX-License-Identifier: BSD-2-Clause */
/* uri-parse.c -- parsing URIs: the general options, and checking options against the scheme's */

#include <string.h>
#include <vmferry/plugin/transport.h>

#include "base/uri-value.h"

/*
 * Values are added and multiplied, so they have bounds: 1 TiB is more than any guest has in flight,
 * and a week is longer than any wait.
 */
#define SIZE_OPTION_MAX (1ull << 40)
#define TIME_OPTION_MAX (7u * 24 * 3600 * 1000)

static const VmfOptionSpec general_options[] = {
    {.name = "channels",
     .type = VMF_OPTION_UINT,
     .default_value = "auto",
     .min = 1,
     .max = VMF_CHANNELS_MAX,
     .help = "data channels (queue pairs, or sockets); auto: by CPUs and device"},
    {.name = "timeout",
     .type = VMF_OPTION_DURATION,
     .default_value = "10s",
     .min = 100,
     .max = TIME_OPTION_MAX,
     .help = "longest time without a sign of life from the peer"},
    {.name = "connect-timeout",
     .type = VMF_OPTION_DURATION,
     .default_value = "10s",
     .min = 100,
     .max = TIME_OPTION_MAX,
     .help = "longest time to connect and shake hands"},
    {.name = "max-inflight",
     .type = VMF_OPTION_SIZE,
     .default_value = "32M",
     .min = 64 * 1024,
     .max = SIZE_OPTION_MAX,
     .help = "most guest RAM in flight, over all channels; as much again waits, at most 32M"},
    {.name = "zero-detect",
     .type = VMF_OPTION_BOOL,
     .default_value = "on",
     .help = "find zero and never touched pages and do not send them"},
    {.name = "populate",
     .type = VMF_OPTION_BOOL,
     .default_value = "on",
     .help = "make RAM resident while waiting for a source, where memory is plenty (destination)"},
    {.name = "device-workers",
     .type = VMF_OPTION_UINT,
     .default_value = "auto",
     .min = 1,
     .max = 1024,
     .help = "device state: save jobs that run at a time; auto: all (source)"},
    {.name = "device-queue",
     .type = VMF_OPTION_SIZE,
     .default_value = "32M",
     .min = 1,
     .max = 1ull << 40,
     .help = "device state: bytes that may wait for a device (destination)"},
    {.name = "device-buffers",
     .type = VMF_OPTION_UINT,
     .default_value = "64",
     .min = 1,
     .max = 4096,
     .help = "device state: buffers that may wait for a device (destination)"},
    {.name = "devices-queue",
     .type = VMF_OPTION_SIZE,
     .default_value = "128M",
     .min = 1,
     .max = SIZE_OPTION_MAX,
     .help = "device state: bytes that may wait for all devices (destination)"},
    {.name = "devices-buffers",
     .type = VMF_OPTION_UINT,
     .default_value = "1024",
     .min = 1,
     .max = 65536,
     .help = "device state: buffers that may wait for all devices (destination)"},
    {.name = "device-timeout",
     .type = VMF_OPTION_DURATION,
     .default_value = "60s",
     .min = 100,
     .max = TIME_OPTION_MAX,
     .help = "device state: longest time in which a device, or all of them, take nothing"},
    {0},
};

const VmfOptionSpec *vmf_uri_general_options(void)
{
    return general_options;
}

/* --- parsing --- */

static bool add_defaults(VmfUri *uri, const VmfOptionSpec *specs, GError **error)
{
    for (; specs && specs->name; specs++) {
        OptionValue *value = &uri->values[uri->value_count++];

        value->spec = specs;
        if (!option_parse(specs, option_default(specs), value, error)) {
            return false;
        }
    }
    return true;
}

static unsigned count_specs(const VmfOptionSpec *specs)
{
    unsigned count = 0;

    for (; specs && specs->name; specs++) {
        count++;
    }
    return count;
}

bool vmf_uri_set(VmfUri *uri, const char *name, const char *value, GError **error)
{
    OptionValue *found = uri_find_value(uri, name);

    if (!found) {
        const VmfTransport *transport = vmf_transport_find(uri->parts.scheme, NULL);
        const VmfOptionSpec *tables[] = {general_options, transport ? transport->options : NULL};
        g_autofree char *known = options_describe(tables, 2);

        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "%s: has no option \"%s\"; the options are: %s", uri->parts.scheme, name,
                    known);
        return false;
    }
    if (!option_parse(found->spec, value, found, error)) {
        return false;
    }
    found->set = true;
    return true;
}

static bool set_options(VmfUri *uri, GError **error)
{
    for (char **option = uri->parts.options; *option; option++) {
        char *equals = strchr(*option, '=');
        g_autofree char *name = NULL;

        if (!equals) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                        "option \"%s\" of URI \"%s\" has no =value", *option, uri->text);
            return false;
        }
        name = g_strndup(*option, (size_t)(equals - *option));
        if (!vmf_uri_set(uri, name, equals + 1, error)) {
            return false;
        }
    }
    return true;
}

/*
 * Whether the text before the first colon names a transport. The error says what to write instead.
 */
static bool scheme_is_known(const char *text, GError **error)
{
    static const char *const of_qemu[] = {"exec", "fd", "file", NULL};
    const char *colon = strchr(text, ':');
    g_autofree char *scheme = colon ? g_strndup(text, (size_t)(colon - text)) : NULL;
    g_autoptr(GError) failure = NULL;

    if (!colon || colon == text || vmf_transport_find(scheme, &failure)) {
        return true; /* true, or uri_split() finds the error */
    }
    if (g_strv_contains(of_qemu, scheme)) {
        g_set_error(
            error, VMF_ERROR, VMF_ERROR_INVALID,
            "%s: is not a URI scheme of vmferry (it has rdma:, tcp: and unix:); a VM goes to "
            "a file by \"vmferry receive URI --save FILE\", and out of it by \"vmferry send "
            "--load FILE URI\"",
            scheme);
        return false;
    }
    if (uri_is_port(colon + 1)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "bad URI \"%s\": it begins with no SCHEME:, write rdma:%s or tcp:%s", text,
                    text, text);
        return false;
    }
    g_propagate_error(error, g_steal_pointer(&failure));
    return false;
}

VmfUri *vmf_uri_parse(const char *text, GError **error)
{
    g_autoptr(VmfUri) uri = g_new0(VmfUri, 1);
    const VmfTransport *transport;

    g_atomic_ref_count_init(&uri->references);
    uri->text = g_strdup(text);
    if (!scheme_is_known(text, error) || !uri_split(text, &uri->parts, error)) {
        return NULL;
    }
    transport = vmf_transport_find(uri->parts.scheme, error);
    if (!transport) {
        return NULL;
    }
    uri->values =
        g_new0(OptionValue, count_specs(general_options) + count_specs(transport->options));
    if (!add_defaults(uri, general_options, error) ||
        !add_defaults(uri, transport->options, error) || !set_options(uri, error)) {
        return NULL;
    }
    return g_steal_pointer(&uri);
}
