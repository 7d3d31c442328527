/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-listen.c -- listening on sockets: sources, their channels, strangers and silent sockets */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/message.h"
#include "base/resolve.h"
#include "tcp.h"

#define SOCKETS_MAX 8  /* addresses of one host name */
#define SILENT_MAX 128 /* accepted sockets that have not said who they are */
#define SOURCES_MAX 16 /* sources that wait to be accepted; any more are told that it is busy */
#define ACCEPTS_MAX 64 /* sockets accepted in one turn */
/* Without free descriptors or memory, nobody is accepted for so long; some may come free. */
#define PAUSE_US 200000

/*
 * An accepted socket whose preamble is not complete, or which has named a session and not begun to
 * greet. A source greets at once. So a silent one is not let in before one that greets.
 */
typedef struct Silent {
    int fd;
    gint64 deadline;
    uint8_t bytes[TCP_PREAMBLE_BYTES];
    size_t have;
} Silent;

typedef struct TcpListener {
    VmfUri *uri;
    int fds[SOCKETS_MAX];
    unsigned fd_count;
    unsigned connect_timeout_ms, timeout_ms;
    GPtrArray *silent; /* Silent */
    GQueue sources;    /* fds (as pointers) of control connections that named a session */
    gint64 paused_until;
    int pause_errno;  /* why it paused last; 0: it never did */
    TcpConn *opening; /* the connection whose channels are awaited */
    unsigned opened;
} TcpListener;

static TcpListener *tcp_listener(VmfTransportListener *listener)
{
    return (TcpListener *)listener;
}

static void silent_free(void *opaque)
{
    Silent *silent = opaque;

    if (silent->fd >= 0) {
        close(silent->fd);
    }
    g_free(silent);
}

/* --- listening --- */

static bool listen_on(TcpListener *listener, const struct sockaddr *address, socklen_t size,
                      const char *what, GError **error)
{
    int on = 1, off = 0;
    int fd = VMF_FAULT("socket listen")
                 ? (errno = ENFILE, -1)
                 : socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        tcp_set_error(error, VMF_ERROR_CONNECT, errno, what);
        return false;
    }
    if (address->sa_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (address->sa_family == AF_INET6) { /* "any address" takes IPv4 as well */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (VMF_FAULT("bind") ? (errno = EADDRINUSE, true)
                          : bind(fd, address, size) < 0 || listen(fd, 128) < 0) {
        tcp_set_error(error, VMF_ERROR_CONNECT, errno, what);
        close(fd);
        return false;
    }
    listener->fds[listener->fd_count++] = fd;
    return true;
}

/*
 * A socket file without a listener is left over from a process that died, and makes room. It does
 * not wait: a listener that lives but accepts nobody has a full backlog.
 */
static void remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat status;
    int fd;

    if (stat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
            errno == ECONNREFUSED) {
            unlink(address->sun_path);
        }
        close(fd);
    }
}

static bool listen_unix(TcpListener *listener, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = vmf_uri_path(listener->uri);
    g_autofree char *what = g_strdup_printf("cannot listen on unix:%s", path);

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "%s: the path is too long", what);
        return false;
    }
    remove_stale_socket(&address);
    return listen_on(listener, (struct sockaddr *)&address, sizeof(address), what, error);
}

static bool listen_inet(TcpListener *listener, int family, GError **error)
{
    const char *host = vmf_uri_host(listener->uri), *port = vmf_uri_port(listener->uri);
    const ResolveQuery query = {
        .host = host,
        .port = port,
        .family = family,
        .deadline = g_get_monotonic_time() + (gint64)listener->connect_timeout_ms * 1000,
        .cancel_fd = -1,
    };
    struct addrinfo *list = resolve_host(&query, error);
    g_autoptr(GError) failure = NULL;

    if (!list) {
        return false;
    }
    for (struct addrinfo *at = list; at && listener->fd_count < SOCKETS_MAX; at = at->ai_next) {
        g_autofree char *what =
            g_strdup_printf("cannot listen on %s port %s", *host ? host : "any address", port);

        g_clear_error(&failure);
        listen_on(listener, at->ai_addr, at->ai_addrlen, what, &failure);
        if (listener->fd_count && g_str_equal(port, "0")) {
            break; /* a second address would get another port */
        }
    }
    freeaddrinfo(list);
    if (!listener->fd_count) {
        g_propagate_error(error, g_steal_pointer(&failure));
        return false;
    }
    return true;
}

static bool listen_any(TcpListener *listener, GError **error)
{
    if (vmf_uri_path(listener->uri)) {
        return listen_unix(listener, error);
    }
    if (*vmf_uri_host(listener->uri)) {
        return listen_inet(listener, AF_UNSPEC, error);
    }
    /* One IPv6 socket takes IPv4 as well. A kernel without IPv6 has IPv4 alone. */
    return listen_inet(listener, AF_INET6, NULL) || listen_inet(listener, AF_INET, error);
}

VmfTransportListener *tcp_listen(const VmfUri *uri, GError **error)
{
    TcpListener *listener = g_new0(TcpListener, 1);

    listener->uri = vmf_uri_ref((VmfUri *)uri);
    listener->connect_timeout_ms = (unsigned)vmf_uri_get_uint(uri, "connect-timeout");
    listener->timeout_ms = (unsigned)vmf_uri_get_uint(uri, "timeout");
    listener->silent = g_ptr_array_new_with_free_func(silent_free);
    if (!listen_any(listener, error)) {
        tcp_listener_free((VmfTransportListener *)listener);
        return NULL;
    }
    return (VmfTransportListener *)listener;
}

char *tcp_listener_address(VmfTransportListener *base)
{
    TcpListener *listener = tcp_listener(base);
    const char *host = vmf_uri_host(listener->uri);
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    char port[NI_MAXSERV];
    bool v6 = strchr(host, ':') != NULL;

    if (vmf_uri_path(listener->uri)) {
        return g_strdup_printf("unix:%s", vmf_uri_path(listener->uri));
    }
    if (getsockname(listener->fds[0], (struct sockaddr *)&address, &size) ||
        getnameinfo((struct sockaddr *)&address, size, NULL, 0, port, sizeof(port),
                    NI_NUMERICSERV)) {
        g_strlcpy(port, vmf_uri_port(listener->uri), sizeof(port));
    }
    return g_strdup_printf("tcp:%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

void tcp_listener_free(VmfTransportListener *base)
{
    TcpListener *listener = tcp_listener(base);

    if (!listener) {
        return;
    }
    for (unsigned i = 0; i < listener->fd_count; i++) {
        close(listener->fds[i]);
    }
    if (listener->fd_count && vmf_uri_path(listener->uri)) {
        unlink(vmf_uri_path(listener->uri));
    }
    while (!g_queue_is_empty(&listener->sources)) {
        close(GPOINTER_TO_INT(g_queue_pop_head(&listener->sources)));
    }
    g_ptr_array_unref(listener->silent);
    vmf_uri_unref(listener->uri);
    g_free(listener);
}

/* --- sockets that were accepted --- */

static bool hung_up(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLRDHUP};

    return poll(&pollfd, 1, 0) > 0;
}

static void drop_who_left(TcpListener *listener)
{
    for (guint i = g_queue_get_length(&listener->sources); i-- > 0;) {
        const int fd = GPOINTER_TO_INT(g_queue_peek_nth(&listener->sources, i));

        if (hung_up(fd)) {
            close(fd);
            g_queue_pop_nth(&listener->sources, i);
        }
    }
}

/* Reads what was said first, because closing a socket with unread bytes may lose the answer. */
static void tell_busy(int fd)
{
    static const char text[] = "busy: too many other sources wait for it already; try again later";
    const MessageHeader header = {
        .length = sizeof(text) - 1, .type = MESSAGE_ERROR, .argument = VMF_ERROR_REFUSED};
    uint8_t bytes[TCP_FRAME_BYTES + MESSAGE_HEADER_BYTES + sizeof(text) - 1];
    char said[4096];
    unsigned i = 0;

    while (i++ < 16 && recv(fd, said, sizeof(said), 0) > 0) {
    }
    tcp_frame_encode(sizeof(bytes) - TCP_FRAME_BYTES, bytes);
    message_header_encode(&header, bytes + TCP_FRAME_BYTES);
    memcpy(bytes + TCP_FRAME_BYTES + MESSAGE_HEADER_BYTES, text, sizeof(text) - 1);
    (void)send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
}

/* What becomes of a socket that has said something. */
typedef enum { CALLER_WAIT, CALLER_DROP, CALLER_KEPT } Caller;

static Caller sort_source(TcpListener *listener, int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK);

    if (n <= 0) {
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? CALLER_WAIT : CALLER_DROP;
    }
    if (g_queue_get_length(&listener->sources) >= SOURCES_MAX) {
        drop_who_left(listener);
    }
    if (g_queue_get_length(&listener->sources) >= SOURCES_MAX) {
        tell_busy(fd);
        return CALLER_DROP;
    }
    g_queue_push_tail(&listener->sources, GINT_TO_POINTER(fd));
    return CALLER_KEPT;
}

static Caller sort_channel(TcpListener *listener, int fd, const TcpPreamble *preamble)
{
    TcpConn *conn = listener->opening;

    if (!conn || memcmp(preamble->uuid, conn->base.uuid, VMF_UUID_BYTES) != 0 ||
        preamble->channel >= conn->base.channels || conn->channels[preamble->channel]) {
        return CALLER_DROP; /* of an unknown session, or of a number that is taken */
    }
    conn->channels[preamble->channel] = tcp_channel_new(conn, preamble->channel, fd);
    listener->opened++;
    return CALLER_KEPT;
}

/* A socket whose preamble is complete. */
static Caller sort_in(TcpListener *listener, int fd, const uint8_t bytes[TCP_PREAMBLE_BYTES])
{
    g_autoptr(GError) stranger = NULL;
    TcpPreamble preamble;

    if (!tcp_preamble_decode(bytes, &preamble, &stranger)) {
        g_debug("tcp: dropped a stranger: %s", stranger->message);
        return CALLER_DROP;
    }
    return preamble.kind == TCP_KIND_CONTROL ? sort_source(listener, fd)
                                             : sort_channel(listener, fd, &preamble);
}

/* Reads what a silent socket says. */
static Caller listen_to(TcpListener *listener, Silent *silent)
{
    const size_t left = sizeof(silent->bytes) - silent->have;

    if (left) {
        ssize_t n = recv(silent->fd, silent->bytes + silent->have, left, 0);

        if (n <= 0) {
            return n < 0 && (errno == EAGAIN || errno == EINTR) ? CALLER_WAIT : CALLER_DROP;
        }
        silent->have += (size_t)n;
        if ((size_t)n < left) {
            return CALLER_WAIT;
        }
    }
    return sort_in(listener, silent->fd, silent->bytes);
}

static void let_in(TcpListener *listener, int listening)
{
    for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
        int fd = VMF_FAULT("accept4")
                     ? (errno = EMFILE, -1)
                     : accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        Silent *silent;

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                listener->paused_until = g_get_monotonic_time() + PAUSE_US;
                listener->pause_errno = errno;
            }
            return; /* else nobody is there, or has left at once */
        }
        if (!tcp_prepare(fd, listener->timeout_ms, NULL)) {
            close(fd);
            continue;
        }
        if (listener->silent->len >=
            SILENT_MAX) { /* the socket that was silent longest makes room */
            g_ptr_array_remove_index(listener->silent, 0);
        }
        silent = g_new0(Silent, 1);
        silent->fd = fd;
        silent->deadline = g_get_monotonic_time() + (gint64)listener->connect_timeout_ms * 1000;
        g_ptr_array_add(listener->silent, silent);
    }
}

static int drop_overdue(TcpListener *listener, gint64 deadline)
{
    gint64 now = g_get_monotonic_time();

    while (listener->silent->len) { /* they are in the order of their deadlines */
        Silent *oldest = listener->silent->pdata[0];

        if (oldest->deadline > now) {
            deadline = MIN(deadline, oldest->deadline);
            break;
        }
        g_ptr_array_remove_index(listener->silent, 0);
    }
    return deadline == G_MAXINT64 ? -1 : (int)(MAX(deadline - now, 0) / 1000) + 1;
}

/* Waits until something happens on any socket, and handles it. */
static bool pump(TcpListener *listener, gint64 deadline, int cancel_fd, GError **error)
{
    struct pollfd fds[1 + SOCKETS_MAX + SILENT_MAX];
    bool paused = g_get_monotonic_time() < listener->paused_until;
    int timeout_ms =
        drop_overdue(listener, paused ? MIN(deadline, listener->paused_until) : deadline);
    unsigned count = 0, silent_count = listener->silent->len;

    fds[count++] = (struct pollfd){.fd = cancel_fd, .events = POLLIN};
    for (unsigned i = 0; i < listener->fd_count; i++) {
        fds[count++] = (struct pollfd){.fd = paused ? -1 : listener->fds[i], .events = POLLIN};
    }
    for (unsigned i = 0; i < silent_count; i++) {
        const Silent *silent = listener->silent->pdata[i];
        fds[count++] = (struct pollfd){.fd = silent->fd, .events = POLLIN};
    }
    if (poll(fds, count, timeout_ms) < 0) {
        if (errno == EINTR) {
            return true;
        }
        tcp_set_error(error, VMF_ERROR_IO, errno, "waiting for a connection");
        return false;
    }
    if (fds[0].revents) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CANCELLED, "waiting for a connection: cancelled");
        return false;
    }
    /* In the order in which they came: the first is accepted first. */
    for (unsigned i = 0, at = 0; i < silent_count; i++) {
        Silent *silent = listener->silent->pdata[at];
        const Caller caller =
            fds[1 + listener->fd_count + i].revents ? listen_to(listener, silent) : CALLER_WAIT;

        if (caller == CALLER_WAIT) {
            at++;
            continue;
        }
        silent->fd = caller == CALLER_KEPT ? -1 : silent->fd;
        g_ptr_array_remove_index(listener->silent, at);
    }
    for (unsigned i = 0; i < listener->fd_count; i++) {
        if (fds[1 + i].revents) {
            let_in(listener, listener->fds[i]);
        }
    }
    return true;
}

/* The next source that waits and is still there, or -1. */
static int next_source(TcpListener *listener)
{
    drop_who_left(listener);
    return g_queue_is_empty(&listener->sources)
               ? -1
               : GPOINTER_TO_INT(g_queue_pop_head(&listener->sources));
}

VmfConn *tcp_accept(VmfTransportListener *base, GCancellable *cancel, GError **error)
{
    TcpListener *listener = tcp_listener(base);
    GPollFD cancel_fd = {.fd = -1};
    TcpConn *conn;
    int fd = -1;

    g_cancellable_make_pollfd(cancel, &cancel_fd);
    while ((fd = next_source(listener)) < 0 && pump(listener, G_MAXINT64, cancel_fd.fd, error)) {
    }
    if (cancel_fd.fd >= 0) {
        g_cancellable_release_fd(cancel);
    }
    if (fd < 0) {
        return NULL;
    }
    conn = tcp_conn_new(listener->uri, VMF_ROLE_DESTINATION, fd, error);
    if (!conn) {
        return NULL;
    }
    conn->listener = listener;
    return &conn->base;
}

static void missing_channels(const TcpConn *conn, GError **error)
{
    const TcpListener *listener = conn->listener;

    g_set_error(error, VMF_ERROR, listener->pause_errno ? VMF_ERROR_IO : VMF_ERROR_TIMEOUT,
                "only %u of %u channels arrived from %s within %.1f s%s%s%s", listener->opened,
                conn->base.channels, conn->base.peer, listener->connect_timeout_ms / 1000.0,
                listener->pause_errno ? ": this side could not take them in: " : "",
                listener->pause_errno ? g_strerror(listener->pause_errno) : "",
                listener->pause_errno == EMFILE
                    ? "; raise the limit (ulimit -n, LimitNOFILE=) or use fewer channels"
                    : "");
}

bool tcp_await_channels(TcpConn *conn, GError **error)
{
    TcpListener *listener = conn->listener;
    gint64 deadline = g_get_monotonic_time() + (gint64)listener->connect_timeout_ms * 1000;
    bool ok = true;

    listener->opening = conn;
    listener->opened = 0;
    listener->pause_errno = 0;
    while (ok && listener->opened < conn->base.channels) {
        ok = pump(listener, deadline, conn->base.cancel_fd, error);
        if (ok && listener->opened < conn->base.channels && g_get_monotonic_time() >= deadline) {
            missing_channels(conn, error);
            ok = false;
        }
    }
    listener->opening = NULL;
    conn->listener = NULL;
    return ok;
}
