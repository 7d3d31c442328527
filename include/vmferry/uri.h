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
 * SCHEME:HOST:PORT[,option=value...] or unix:PATH[,option=value...]. An IPv6 host is in brackets,
 * with its scope ("rdma:[fe80::1%eth0]:4444"), as QEMU writes it. An empty host listens on every
 * address. A comma in PATH is written twice.
 */

typedef enum {
    VMF_OPTION_BOOL,     /* on/off, yes/no, true/false, 1/0 */
    VMF_OPTION_UINT,     /* decimal, min..max; at most UINT32_MAX */
    VMF_OPTION_SIZE,     /* bytes: 4096, 64K, 1M, 2G (powers of 1024), min..max */
    VMF_OPTION_DURATION, /* 250ms, 10s, 2min, 1h; a bare number: seconds; at most INT32_MAX ms */
    VMF_OPTION_CHOICE,   /* one of the words in `choices' */
    VMF_OPTION_STRING
} VmfOptionType;

/* One option. A table of options ends with a NULL name. All strings are static. */
typedef struct VmfOptionSpec {
    const char *name;
    VmfOptionType type;
    const char *default_value; /* as a user writes it; "auto" for a number is 0 */
    const char *help;          /* one line */
    uint64_t min, max;         /* for numbers; max 0: the most of the type, see above */
    const char *choices;       /* for VMF_OPTION_CHOICE: words with | between */
    uint64_t reserved[2]; /* 0; plugins have such tables: plugin/transport.h says how they grow */
} VmfOptionSpec;

/*
 * A parsed URI: scheme, address, and every option of its scheme, given or default. A host has no
 * brackets, and keeps its %scope. References may be taken and dropped in any thread.
 * vmf_uri_unref() allows NULL. Several threads may read it; vmf_uri_set() needs it alone. It owns
 * the strings that its functions return.
 */
typedef struct VmfUri VmfUri;

/*
 * Parses `text'. Its options are checked against the general ones and those of the scheme's
 * transport, whose plugin is loaded for this. The error about a wrong option lists the right ones.
 * Returns NULL with VMF_ERROR_INVALID or VMF_ERROR_PLUGIN. Any thread.
 */
VMF_API VmfUri *vmf_uri_parse(const char *text, GError **error);
VMF_API VmfUri *vmf_uri_ref(VmfUri *uri);
VMF_API void vmf_uri_unref(VmfUri *uri);

VMF_API const char *vmf_uri_scheme(const VmfUri *uri);
VMF_API const char *vmf_uri_host(const VmfUri *uri); /* "": any address, or unix: */
VMF_API const char *vmf_uri_port(const VmfUri *uri); /* a number as text; NULL for unix: */
VMF_API const char *vmf_uri_path(const VmfUri *uri); /* NULL, except for unix: */
VMF_API const char *vmf_uri_text(const VmfUri *uri); /* as given, without vmf_uri_set() */

/*
 * The value of an option. Sizes are bytes, durations milliseconds, and "auto" is 0. A name that the
 * scheme does not have, or a wrong type, is a bug of the caller, and aborts. A string is valid
 * until the option is set.
 */
VMF_API bool vmf_uri_get_bool(const VmfUri *uri, const char *name);
VMF_API uint64_t vmf_uri_get_uint(const VmfUri *uri, const char *name); /* UINT, SIZE, DURATION */
VMF_API const char *vmf_uri_get_string(const VmfUri *uri, const char *name); /* CHOICE, STRING */
VMF_API bool vmf_uri_is_set(const VmfUri *uri, const char *name);            /* was it given? */
/*
 * Changes an option as if it had been given, for programs with options of their own. Returns false
 * with VMF_ERROR_INVALID; then nothing has changed.
 */
VMF_API bool vmf_uri_set(VmfUri *uri, const char *name, const char *value, GError **error);

/*
 * The options that every scheme has: a static table of channels, timeout, connect-timeout,
 * max-inflight, zero-detect, populate, and the options of device state: device-workers,
 * device-queue, device-buffers, devices-queue, devices-buffers, device-timeout.
 */
VMF_API const VmfOptionSpec *vmf_uri_general_options(void);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfUri, vmf_uri_unref)

G_END_DECLS

#endif
