/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-uri.c -- URIs and option values out of arbitrary text */

#include <glib.h>
#include <vmferry/plugin/transport.h>

#include "fuzz.h"
#include "base/options.h"
#include "base/uri-parts.h"

static void check_parts(const char *text)
{
    UriParts parts;
    g_autoptr(GError) error = NULL;

    if (uri_split(text, &parts, &error)) {
        g_assert(*parts.scheme && parts.host && parts.options);
        g_assert(!parts.port != !parts.path);
        g_assert(!parts.port || g_ascii_strtoull(parts.port, NULL, 10) <= 65535);
    } else {
        g_assert(error && *error->message);
    }
    uri_parts_clear(&parts);
}

/* Only the built-in schemes, because any other would look for files. */
static void check_whole(const char *text)
{
    g_autoptr(VmfUri) uri = NULL;
    g_autoptr(GError) error = NULL;

    if (!g_str_has_prefix(text, "tcp:") && !g_str_has_prefix(text, "unix:")) {
        return;
    }
    uri = vmf_uri_parse(text, &error);
    g_assert(!uri == !!error);
    if (uri) {
        g_assert(vmf_uri_get_uint(uri, "channels") <= VMF_CHANNELS_MAX);
        g_assert(vmf_uri_get_uint(uri, "timeout") >= 100);
        g_assert(vmf_uri_get_uint(uri, "max-inflight") >= 65536);
        g_assert_cmpstr(vmf_uri_text(uri), ==, text);
    }
}

static void check_values(const char *text)
{
    for (const VmfOptionSpec *spec = vmf_uri_general_options(); spec->name; spec++) {
        OptionValue value = {.spec = spec, .number = 12345};
        bool ok = option_parse(spec, text, &value, NULL);

        g_assert(ok || value.number == 12345);
        g_assert(!ok || !value.number || value.number >= spec->min);
        g_assert(!ok || !spec->max || value.number <= spec->max);
        g_free(value.text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);

    check_parts(text);
    check_whole(text);
    check_values(text);
    return 0;
}

const FuzzSeed fuzz_seeds[] = {
    FUZZ_SEED("tcp:host.example:4444,channels=4,timeout=250ms,zero-detect=off"),
    FUZZ_SEED("tcp:[fe80::1%eth0]:4444,max-inflight=64M"),
    FUZZ_SEED("unix:/run/a,,b,connect-timeout=2min"),
    FUZZ_SEED("18446744073709551615K"),
    {0},
};
