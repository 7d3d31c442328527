/* SPDX-License-Identifier: BSD-2-Clause */
/* resolve.h -- looking up host names, with a deadline and a way to cancel */

#ifndef VMF_RESOLVE_H
#define VMF_RESOLVE_H

#include <netdb.h>
#include <glib.h>

typedef struct ResolveQuery {
    const char *host; /* "": any address, to listen on */
    const char *port; /* a number */
    int family;       /* AF_UNSPEC: any */
    gint64 deadline;  /* of g_get_monotonic_time */
    int cancel_fd;    /* readable: give up; -1: none */
} ResolveQuery;

/*
 * The addresses of a host for stream sockets; free them by freeaddrinfo(). Returns NULL with *error
 * if the name is unknown, the deadline has come, or cancel_fd is readable. Any thread.
 */
struct addrinfo *resolve_host(const ResolveQuery *query, GError **error);

/*
 * When the attempt at one address must end, so that each of `count' addresses has an equal share of
 * the time until the deadline. This address is one of them.
 */
gint64 resolve_share(gint64 deadline, unsigned count);
/* How many addresses there are in a list, from this one on. */
unsigned resolve_count(const struct addrinfo *list);

#endif
