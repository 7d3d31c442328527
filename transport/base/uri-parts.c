/* SPDX-License-Identifier: BSD-2-Clause */
/* uri-parts.c -- cutting a URI into its parts, a pure function over text */

#include "uri-parts.h"

#include <stdint.h>
#include <string.h>

#include "decimal.h"

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

/* Cuts at single commas. A doubled comma is one comma of the text. */
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

bool uri_is_port(const char *port)
{
    uint64_t number;

    return decimal_is(port, UINT16_MAX, &number);
}

/* Other programs write tcp://HOST:PORT. */
static bool has_slashes(const char *text, const UriParts *parts, GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                "bad URI \"%s\": there are no slashes after %s:, write %s:%s", text, parts->scheme,
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
            return bad_uri(text, "no :PORT after the address", error);
        }
    } else {
        colon = strchr(address, ':');
        if (!colon) {
            return bad_uri(text, "no :PORT after the host", error);
        }
        if (strchr(colon + 1, ':')) {
            return bad_uri(text, "an IPv6 address goes in brackets, as in rdma:[fe80::1%eth0]:4444",
                           error);
        }
        parts->host = g_strndup(address, (size_t)(colon - address));
    }
    parts->port = g_strdup(colon + 1);
    return uri_is_port(parts->port) ||
           bad_uri(text, "the port is no number from 0 to 65535", error);
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
