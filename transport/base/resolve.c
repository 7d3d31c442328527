/* SPDX-License-Identifier: BSD-2-Clause */
/* resolve.c -- looking up host names, with a deadline and a way to cancel */

#include "resolve.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vmferry/error.h>

#include "fault.h"
#include "fd-wait.h"

/*
 * getaddrinfo() has no deadline: a name server that does not answer holds it. So a thread of its
 * own looks the name up. That thread ends by itself when nobody waits any more, and frees the
 * lookup.
 */
typedef struct Lookup {
    gatomicrefcount references;
    char *host, *port;
    int family;
    int done_fd;
    int err;
    struct addrinfo *list;
} Lookup;

static void lookup_unref(Lookup *lookup)
{
    if (!g_atomic_ref_count_dec(&lookup->references)) {
        return;
    }
    if (lookup->list) {
        freeaddrinfo(lookup->list);
    }
    close(lookup->done_fd);
    g_free(lookup->host);
    g_free(lookup->port);
    g_free(lookup);
}

static int look_up(const char *host, const char *port, int family, int flags,
                   struct addrinfo **list)
{
    const struct addrinfo hints = {
        .ai_family = family,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | flags | (*host ? 0 : AI_PASSIVE),
    };

    return VMF_FAULT("getaddrinfo") ? EAI_MEMORY
                                    : getaddrinfo(*host ? host : NULL, port, &hints, list);
}

static void *lookup_main(void *opaque)
{
    Lookup *lookup = opaque;
    const uint64_t one = 1;
    ssize_t n;

    lookup->err = look_up(lookup->host, lookup->port, lookup->family, 0, &lookup->list);
    n = write(lookup->done_fd, &one, sizeof(one));
    (void)n; /* if it fails, the deadline ends the wait of the other side */
    lookup_unref(lookup);
    return NULL;
}

static Lookup *lookup_start(const ResolveQuery *query, GError **error)
{
    g_autoptr(GError) failure = NULL;
    Lookup *lookup;
    GThread *thread;
    int fd = VMF_FAULT("eventfd resolve") ? (errno = EMFILE, -1)
                                          : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot create an event descriptor: %s",
                    g_strerror(errno));
        return NULL;
    }
    lookup = g_new0(Lookup, 1);
    g_atomic_ref_count_init(&lookup->references);
    g_atomic_ref_count_inc(&lookup->references);
    lookup->host = g_strdup(query->host);
    lookup->port = g_strdup(query->port);
    lookup->family = query->family;
    lookup->done_fd = fd;
    thread = g_thread_try_new("vmf-resolve", lookup_main, lookup, &failure);
    if (!thread) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "cannot start a thread to look up \"%s\": %s", query->host, failure->message);
        lookup_unref(lookup);
        lookup_unref(lookup);
        return NULL;
    }
    g_thread_unref(thread);
    return lookup;
}

/* Waits for the lookup, and takes its list. */
static bool lookup_await(Lookup *lookup, const ResolveQuery *query, int *err,
                         struct addrinfo **list, GError **error)
{
    g_autofree char *what = g_strdup_printf("looking up host \"%s\"", query->host);
    uint64_t count;

    if (!fd_wait(lookup->done_fd, POLLIN, query->cancel_fd, query->deadline, what, error)) {
        return false;
    }
    if (read(lookup->done_fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "%s: %s", what, g_strerror(errno));
        return false;
    }
    *err = lookup->err;
    *list = g_steal_pointer(&lookup->list);
    return true;
}

struct addrinfo *resolve_host(const ResolveQuery *query, GError **error)
{
    struct addrinfo *list = NULL;
    int err = look_up(query->host, query->port, query->family, AI_NUMERICHOST, &list);

    if (err == EAI_NONAME) {
        Lookup *lookup = lookup_start(query, error);
        bool ok = lookup && lookup_await(lookup, query, &err, &list, error);

        if (lookup) {
            lookup_unref(lookup);
        }
        if (!ok) {
            return NULL;
        }
    }
    if (err) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CONNECT, "cannot resolve host \"%s\": %s",
                    query->host, gai_strerror(err));
        return NULL;
    }
    return list;
}

/* --- several addresses --- */

gint64 resolve_share(gint64 deadline, unsigned count)
{
    const gint64 now = g_get_monotonic_time();

    return now + MAX(deadline - now, 0) / MAX(count, 1);
}

unsigned resolve_count(const struct addrinfo *list)
{
    unsigned count = 0;

    for (; list; list = list->ai_next) {
        count++;
    }
    return count;
}
