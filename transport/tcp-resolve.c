/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-resolve.c -- looking up host names with a deadline, cancellable */

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fault.h"
#include "tcp.h"

/*
 * A name server that does not answer keeps getaddrinfo() for as long as it
 * likes, so a name is looked up in a thread of its own, which is left to itself
 * when nobody waits for it any more.
 */
typedef struct Lookup {
    gatomicrefcount references;
    char *host, *port;
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

static int look_up(const char *host, const char *port, int flags, struct addrinfo **list)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};

    return VMF_FAULT("getaddrinfo") ? EAI_MEMORY : getaddrinfo(host, port, &hints, list);
}

static void *lookup_main(void *opaque)
{
    Lookup *lookup = opaque;
    const uint64_t one = 1;
    ssize_t n;

    lookup->err = look_up(lookup->host, lookup->port, 0, &lookup->list);
    n = write(lookup->done_fd, &one, sizeof(one));
    (void)n; /* if nobody can be told, the other side's deadline ends its wait */
    lookup_unref(lookup);
    return NULL;
}

static Lookup *lookup_start(const char *host, const char *port, GError **error)
{
    g_autoptr(GError) failure = NULL;
    Lookup *lookup;
    GThread *thread;
    int fd = VMF_FAULT("eventfd resolve") ? (errno = EMFILE, -1)
                                          : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot create an event descriptor");
        return NULL;
    }
    lookup = g_new0(Lookup, 1);
    g_atomic_ref_count_init(&lookup->references);
    g_atomic_ref_count_inc(&lookup->references);
    lookup->host = g_strdup(host);
    lookup->port = g_strdup(port);
    lookup->done_fd = fd;
    thread = g_thread_try_new("vmf-resolve", lookup_main, lookup, &failure);
    if (!thread) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_FAILED,
                    "cannot start a thread to look up \"%s\": %s", host, failure->message);
        lookup_unref(lookup);
        lookup_unref(lookup);
        return NULL;
    }
    g_thread_unref(thread);
    return lookup;
}

/* Waits for the lookup; takes its list. */
static bool lookup_await(Lookup *lookup, gint64 deadline, int cancel_fd, int *err,
                         struct addrinfo **list, GError **error)
{
    g_autofree char *what = g_strdup_printf("looking up host \"%s\"", lookup->host);
    uint64_t count;

    if (!tcp_wait(lookup->done_fd, POLLIN, cancel_fd, deadline, what, error)) {
        return false;
    }
    if (read(lookup->done_fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
        tcp_set_error(error, VMF_ERROR_IO, errno, what);
        return false;
    }
    *err = lookup->err;
    *list = g_steal_pointer(&lookup->list);
    return true;
}

struct addrinfo *tcp_resolve(const char *host, const char *port, gint64 deadline, int cancel_fd,
                             GError **error)
{
    struct addrinfo *list = NULL;
    int err = look_up(host, port, AI_NUMERICHOST, &list);

    if (err == EAI_NONAME) {
        Lookup *lookup = lookup_start(host, port, error);
        bool ok = lookup && lookup_await(lookup, deadline, cancel_fd, &err, &list, error);

        if (lookup) {
            lookup_unref(lookup);
        }
        if (!ok) {
            return NULL;
        }
    }
    if (err) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CONNECT, "cannot resolve host \"%s\": %s", host,
                    gai_strerror(err));
        return NULL;
    }
    return list;
}
