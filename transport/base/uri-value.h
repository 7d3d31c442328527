/* SPDX-License-Identifier: BSD-2-Clause */
/* uri-value.h -- the inside of VmfUri: its parts, and the value of every option of its scheme */

#ifndef VMF_URI_VALUE_H
#define VMF_URI_VALUE_H

#include <vmferry/uri.h>

#include "options.h"
#include "uri-parts.h"

struct VmfUri {
    gatomicrefcount references;
    char *text;
    UriParts parts;
    OptionValue *values;
    unsigned value_count;
};

/* The option of that name, or NULL. */
OptionValue *uri_find_value(const VmfUri *uri, const char *name);

#endif
