/* SPDX-License-Identifier: BSD-2-Clause */
/* uri-value.c -- what a parsed URI says */

#include "uri-value.h"

OptionValue *uri_find_value(const VmfUri *uri, const char *name)
{
    for (unsigned i = 0; i < uri->value_count; i++) {
        if (g_str_equal(uri->values[i].spec->name, name)) {
            return &uri->values[i];
        }
    }
    return NULL;
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

/* A program asks only for options that the tables have. Anything else is a bug of the program. */
static const OptionValue *need_value(const VmfUri *uri, const char *name, unsigned types)
{
    const OptionValue *value = uri_find_value(uri, name);

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
