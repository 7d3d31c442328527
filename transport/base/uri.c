/* SPDX-License-Identifier: BSD-2-Clause */
/* uri.c -- migration URIs */

#include <string.h>
#include <vmferry/plugin/transport.h>

#include "options.h"
#include "uri.h"

struct VmfUri {
    gatomicrefcount references;
    char *text;
    UriParts parts;
    OptionValue *values;
    unsigned value_count;
};

/* More than any guest has outstanding, and a week: they are added up and multiplied. */
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

/* --- splitting --- */

void uri_parts_clear(UriParts *parts)
{
    g_clear_pointer(&parts->scheme, g_free);
    g_clear_pointer(&parts->host, g_free);
    g_clear_pointer(&parts->port, g_free);
    g_clear_pointer(&parts->path, g_free);
    g_clear_pointer(&parts->options, g_strfreev);
}

static bool bad_uri(const char *text, const char *why, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                "bad URI \"%s\": %s (expected SCHEME:HOST:PORT[,option=value...])", text, why);
    return false;
}

/* Cuts at single commas; a doubled one stands for itself. */
static char **split_commas(const char *text)
{
    GPtrArray *pieces = g_ptr_array_new();
    GString *piece = g_string_new(NULL);

    for (const char *at = text; *at; at++) {
        if (*at == ',' && at[1] == ',') {
            g_string_append_c(piece, ',');
            at++;
        } else if (*at == ',') {
            g_ptr_array_add(pieces, g_string_free(piece, FALSE));
            piece = g_string_new(NULL);
        } else {
            g_string_append_c(piece, *at);
        }
    }
    g_ptr_array_add(pieces, g_string_free(piece, FALSE));
    g_ptr_array_add(pieces, NULL);
    return (char **)g_ptr_array_free(pieces, FALSE);
}

static bool is_port(const char *port)
{
    uint64_t number;

    return g_ascii_string_to_unsigned(port, 10, 0, 65535, &number, NULL);
}

/* As other programs write them: tcp://HOST:PORT. */
static bool has_slashes(const char *text, const UriParts *parts, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                "bad URI \"%s\": there are no slashes behind %s:, write %s:%s", text, parts->scheme,
                parts->scheme, text + strlen(parts->scheme) + strlen("://"));
    return false;
}

static bool split_address(const char *text, const char *address, UriParts *parts, GError **error)
{
    const char *colon;

    if (g_str_has_prefix(address, "//")) {
        return has_slashes(text, parts, error);
    }
    if (*address == '[') {
        const char *end = strchr(address, ']');

        if (!end || end == address + 1) {
            return bad_uri(text, "an IPv6 address needs both brackets", error);
        }
        parts->host = g_strndup(address + 1, (size_t)(end - address - 1));
        colon = end + 1;
        if (*colon != ':') {
            return bad_uri(text, "no :PORT behind the address", error);
        }
    } else {
        colon = strchr(address, ':');
        if (!colon) {
            return bad_uri(text, "no :PORT behind the host", error);
        }
        if (strchr(colon + 1, ':')) {
            return bad_uri(text, "an IPv6 address goes in brackets, as in rdma:[fe80::1%eth0]:4444",
                           error);
        }
        parts->host = g_strndup(address, (size_t)(colon - address));
    }
    parts->port = g_strdup(colon + 1);
    return is_port(parts->port) || bad_uri(text, "the port is no number from 0 to 65535", error);
}

bool uri_split(const char *text, UriParts *parts, GError **error)
{
    const char *colon = strchr(text, ':');
    g_auto(GStrv) pieces = NULL;

    memset(parts, 0, sizeof(*parts));
    if (!colon || colon == text) {
        return bad_uri(text, "it begins with no SCHEME:", error);
    }
    parts->scheme = g_strndup(text, (size_t)(colon - text));
    pieces = split_commas(colon + 1);
    parts->options = g_strdupv(pieces + 1);
    if (g_str_equal(parts->scheme, "unix")) {
        parts->path = g_strdup(pieces[0]);
        parts->host = g_strdup("");
        return *parts->path || bad_uri(text, "unix: needs a path", error);
    }
    return split_address(text, pieces[0], parts, error);
}

/* --- options --- */

static OptionValue *find_value(const VmfUri *uri, const char *name)
{
    for (unsigned i = 0; i < uri->value_count; i++) {
        if (g_str_equal(uri->values[i].spec->name, name)) {
            return &uri->values[i];
        }
    }
    return NULL;
}

static unsigned add_defaults(VmfUri *uri, unsigned count, const VmfOptionSpec *specs)
{
    for (; specs && specs->name; specs++) {
        OptionValue *value = &uri->values[count++];

        value->spec = specs;
        /* The registry has checked that a table allows its own defaults. */
        (void)option_parse(specs, option_default(specs), value, NULL);
    }
    return count;
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
    OptionValue *found = find_value(uri, name);

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

/* What stands before the first colon names a transport, or the error says what to write. */
static bool scheme_is_known(const char *text, GError **error)
{
    static const char *const of_qemu[] = {"exec", "fd", "file", NULL};
    const char *colon = strchr(text, ':');
    g_autofree char *scheme = colon ? g_strndup(text, (size_t)(colon - text)) : NULL;
    g_autoptr(GError) failure = NULL;

    if (!colon || colon == text || vmf_transport_find(scheme, &failure)) {
        return true; /* or else it cannot be split */
    }
    if (g_strv_contains(of_qemu, scheme)) {
        g_set_error(
            error, VMF_ERROR, VMF_ERROR_INVALID,
            "%s: is no URI scheme of vmferry (it has rdma:, tcp: and unix:); a VM goes to "
            "a file by \"vmferry receive URI --save FILE\", and out of it by \"vmferry send "
            "--load FILE URI\"",
            scheme);
        return false;
    }
    if (is_port(colon + 1)) {
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
    uri->value_count = count_specs(general_options) + count_specs(transport->options);
    uri->values = g_new0(OptionValue, uri->value_count);
    add_defaults(uri, add_defaults(uri, 0, general_options), transport->options);
    return set_options(uri, error) ? g_steal_pointer(&uri) : NULL;
}

VmfUri *vmf_uri_ref(VmfUri *uri)
{
    g_atomic_ref_count_inc(&uri->references);
    return uri;
}

void vmf_uri_unref(VmfUri *uri)
{
    if (!uri || !g_atomic_ref_count_dec(&uri->references)) {
        return;
    }
    for (unsigned i = 0; i < uri->value_count; i++) {
        g_free(uri->values[i].text);
    }
    g_free(uri->values);
    uri_parts_clear(&uri->parts);
    g_free(uri->text);
    g_free(uri);
}

const char *vmf_uri_scheme(const VmfUri *uri)
{
    return uri->parts.scheme;
}

const char *vmf_uri_host(const VmfUri *uri)
{
    return uri->parts.host;
}

const char *vmf_uri_port(const VmfUri *uri)
{
    return uri->parts.port;
}

const char *vmf_uri_path(const VmfUri *uri)
{
    return uri->parts.path;
}

const char *vmf_uri_text(const VmfUri *uri)
{
    return uri->text;
}

#define TYPE(name) (1u << VMF_OPTION_##name)

/* Programs ask for what the tables have: anything else is a bug of theirs. */
static const OptionValue *need_value(const VmfUri *uri, const char *name, unsigned types)
{
    const OptionValue *value = find_value(uri, name);

    if (!value || !(types & 1u << value->spec->type)) {
        g_error("URI scheme %s: has no option %s of that type", uri->parts.scheme, name);
    }
    return value;
}

bool vmf_uri_get_bool(const VmfUri *uri, const char *name)
{
    return need_value(uri, name, TYPE(BOOL))->number != 0;
}

uint64_t vmf_uri_get_uint(const VmfUri *uri, const char *name)
{
    return need_value(uri, name, TYPE(UINT) | TYPE(SIZE) | TYPE(DURATION))->number;
}

const char *vmf_uri_get_string(const VmfUri *uri, const char *name)
{
    return need_value(uri, name, TYPE(CHOICE) | TYPE(STRING))->text;
}

bool vmf_uri_is_set(const VmfUri *uri, const char *name)
{
    return need_value(uri, name, ~0u)->set;
}
