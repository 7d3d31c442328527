/* SPDX-License-Identifier: BSD-2-Clause */
/* uri-parts.h -- cutting a URI into its parts, a pure function over text */

#ifndef VMF_URI_PARTS_H
#define VMF_URI_PARTS_H

#include <stdbool.h>
#include <vmferry/error.h>

typedef struct UriParts {
    char *scheme, *host, *port, *path;
    char **options; /* "name=value", not checked */
} UriParts;

/* Cuts a URI. After a failure the parts may be half filled, so clear them in any case. */
bool uri_split(const char *text, UriParts *parts, GError **error);
void uri_parts_clear(UriParts *parts);
/* Whether the text is a number from 0 to 65535. */
bool uri_is_port(const char *port);

#endif
