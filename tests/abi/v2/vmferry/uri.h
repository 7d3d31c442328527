/* SPDX-License-Identifier: BSD-2-Clause */
/* uri.h -- migration URIs and the options they carry, described as data */

#ifndef VMFERRY_URI_H
#define VMFERRY_URI_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <vmferry/error.h>

G_BEGIN_DECLS

/*
 * SCHEME:HOST:PORT[,option=value...], with an IPv6 host in brackets, scope and
 * all ("rdma:[fe80::1%eth0]:4444"), as QEMU spells it; an empty host (to
 * listen on) is every address; unix:PATH[,option=value...]. A comma in PATH is
 * written twice.
 */

typedef enum {
    VMF_OPTION_BOOL,     /* on/off, yes/no, true/false, 1/0 */
    VMF_OPTION_UINT,     /* decimal, min..max; at most UINT32_MAX */
    VMF_OPTION_SIZE,     /* bytes: 4096, 64K, 1M, 2G (powers of 1024), min..max */
    VMF_OPTION_DURATION, /* 250ms, 10s, 2min; a bare number is seconds; held in milliseconds, at
                            most INT32_MAX of them */
    VMF_OPTION_CHOICE,   /* one of the words in `choices' */
    VMF_OPTION_STRING
} VmfOptionType;

/* One option. A table of them ends with a NULL name. All strings are static. */
typedef struct VmfOptionSpec {
    const char *name;
    VmfOptionType type;
    const char
        *default_value; /* as one would write it; "auto" for a number means 0: chosen at run time */
    const char *help;   /* one line */
    uint64_t min, max;  /* for numbers; max 0: what the type can hold, see above */
    const char *choices;  /* for VMF_OPTION_CHOICE: words with | between */
    uint64_t reserved[2]; /* 0; plugins have tables of these: see transport.h on growth */
} VmfOptionSpec;

/* A parsed URI: scheme, address and every option of its scheme, defaults filled in. */
typedef struct VmfUri VmfUri;

/*
 * Parses `text' and checks its options against the scheme's transport (whose
 * plugin is loaded for this) and the general ones. A wrong option's error
 * lists the good ones. NULL with VMF_ERROR_INVALID or VMF_ERROR_PLUGIN.
 */
VMF_API VmfUri *vmf_uri_parse(const char *text, GError **error);
VMF_API VmfUri *vmf_uri_ref(VmfUri *uri);
VMF_API void vmf_uri_unref(VmfUri *uri);

VMF_API const char *vmf_uri_scheme(const VmfUri *uri);
VMF_API const char *vmf_uri_host(const VmfUri *uri); /* no brackets, with %scope; "" for any */
VMF_API const char *vmf_uri_port(const VmfUri *uri); /* a number as text; NULL for unix: */
VMF_API const char *vmf_uri_path(const VmfUri *uri); /* NULL but for unix: */
VMF_API const char *vmf_uri_text(const VmfUri *uri); /* as given */

/* The value of an option; asking for a name or a type the tables do not have is a bug (aborts). */
VMF_API bool vmf_uri_get_bool(const VmfUri *uri, const char *name);
VMF_API uint64_t vmf_uri_get_uint(const VmfUri *uri, const char *name); /* UINT, SIZE, DURATION */
VMF_API const char *vmf_uri_get_string(const VmfUri *uri, const char *name); /* CHOICE, STRING */
VMF_API bool vmf_uri_is_set(const VmfUri *uri, const char *name); /* was it in the text? */
/* Changes an option as if it had been in the text (for programs with options of their own). */
VMF_API bool vmf_uri_set(VmfUri *uri, const char *name, const char *value, GError **error);

/* Options that every scheme has: channels, timeout, connect-timeout, max-inflight, zero-detect. */
VMF_API const VmfOptionSpec *vmf_uri_general_options(void);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfUri, vmf_uri_unref)

G_END_DECLS

#endif
