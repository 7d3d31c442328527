/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-socket.c -- connecting and waiting on sockets */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fd-wait.h"
#include "base/resolve.h"
#include "tcp.h"

void tcp_set_error(GError **error, int code, int err, const char *what)
{
    g_set_error(error, VMF_ERROR, code, "%s: %s", what, g_strerror(err));
}

bool tcp_prepare(int fd, unsigned timeout_ms, GError **error)
{
    int flags = VMF_FAULT("fcntl") ? (errno = EBADF, -1) : fcntl(fd, F_GETFL);
    int on = 1;
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        tcp_set_error(error, VMF_ERROR_IO, errno, "cannot set up a socket");
        return false;
    }
    if (getsockname(fd, (struct sockaddr *)&address, &size) == 0 && address.ss_family != AF_UNIX) {
        /* These only help: time-outs rest on the engine's heartbeats. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
    return true;
}

char *tcp_peer_name(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0) {
        return g_strdup("unknown peer");
    }
    if (address.ss_family == AF_UNIX) {
        return g_strdup("local process");
    }
    if (getnameinfo((struct sockaddr *)&address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        return g_strdup("unknown peer");
    }
    return strchr(host, ':') ? g_strdup_printf("[%s]:%s", host, port)
                             : g_strdup_printf("%s:%s", host, port);
}

static int connect_address(const struct sockaddr *address, socklen_t size, gint64 deadline,
                           int cancel_fd, const char *what, int *failed, GError **error)
{
    int fd = VMF_FAULT("socket")
                 ? (errno = ENFILE, -1)
                 : socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = 0;
    socklen_t err_size = sizeof(err);

    if (fd < 0) {
        tcp_set_error(error, VMF_ERROR_CONNECT, errno, what);
        return -1;
    }
    if (VMF_FAULT("connect") ? (errno = ENETDOWN, -1) : connect(fd, address, size)) {
        err = errno;
    }
    if (err == EINPROGRESS) {
        if (!fd_wait(fd, POLLOUT, cancel_fd, deadline, what, error)) {
            close(fd);
            return -1;
        }
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_size);
    }
    *failed = err;
    if (err) {
        tcp_set_error(error, err == ECONNREFUSED ? VMF_ERROR_REFUSED : VMF_ERROR_CONNECT, err,
                      what);
        close(fd);
        return -1;
    }
    return fd;
}

/* A full backlog answers at once, and wakes nobody when there is room again. */
#define BACKLOG_RETRY_MS 10

static int connect_unix(const VmfUri *uri, gint64 deadline, int cancel_fd, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = vmf_uri_path(uri);
    g_autofree char *what = g_strdup_printf("cannot connect to unix:%s", path);
    struct pollfd cancel = {.fd = cancel_fd, .events = POLLIN};

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "%s: the path is too long", what);
        return -1;
    }
    for (;;) {
        g_autoptr(GError) failure = NULL;
        int err = 0, fd = connect_address((struct sockaddr *)&address, sizeof(address), deadline,
                                          cancel_fd, what, &err, &failure);

        if (fd >= 0) {
            return fd;
        }
        if (err != EAGAIN || g_get_monotonic_time() >= deadline) {
            g_propagate_error(error, g_steal_pointer(&failure));
            return -1;
        }
        if (poll(&cancel, 1, BACKLOG_RETRY_MS) > 0) {
            g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "%s: cancelled", what);
            return -1;
        }
    }
}

int tcp_connect_socket(const VmfUri *uri, gint64 deadline, int cancel_fd, GError **error)
{
    const ResolveQuery query = {
        .host = vmf_uri_host(uri),
        .port = vmf_uri_port(uri),
        .deadline = deadline,
        .cancel_fd = cancel_fd,
    };
    g_autoptr(GError) failure = NULL;
    struct addrinfo *list;
    int fd = -1, err = 0;

    if (vmf_uri_path(uri)) {
        return connect_unix(uri, deadline, cancel_fd, error);
    }
    if (!*vmf_uri_host(uri)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "tcp: needs a host to connect to");
        return -1;
    }
    list = resolve_host(&query, error);
    if (!list) {
        return -1;
    }
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        const gint64 end = resolve_share(deadline, resolve_count(at));
        char text[NI_MAXHOST] = "?";
        g_autofree char *what = NULL;

        getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
        what = g_strdup_printf("cannot connect to %s port %s", text, vmf_uri_port(uri));
        g_clear_error(&failure);
        fd = connect_address(at->ai_addr, at->ai_addrlen, end, cancel_fd, what, &err, &failure);
        if (fd < 0 && g_error_matches(failure, VMF_ERROR, VMF_ERROR_CANCELLED)) {
            break;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        g_propagate_error(error, g_steal_pointer(&failure));
    }
    return fd;
}
