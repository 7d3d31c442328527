/* SPDX-License-Identifier: BSD-2-Clause */
/* stepper.c -- a transport that wraps another one, to stop and cut its control connection */

#include "stepper.h"

#include <string.h>

#include "base/message.h"

static VmfTransport table;
static const VmfTransport *base;

static struct {
    GMutex lock;
    GCond changed;
    Step stop;
    bool armed, there, let_go;
    bool cut, silent, no_connecting;
    VmfRole cut_off; /* the only side that notices a cut; 0: both do */
    VmfRole swallow_role, clogged, flooded;
    unsigned swallow;
    unsigned waits[3];
    unsigned floods; /* heartbeats that were invented */
    StepCall fails;
    unsigned last_received[3];
    const VmfConn *first[3]; /* the session's control connection, by role; later ones only ask for
                                the outcome */
} steps;

/* --- the test's side --- */

void stepper_stop_at(const Step *step)
{
    g_mutex_lock(&steps.lock);
    steps.stop = *step;
    steps.armed = true;
    steps.there = steps.let_go = false;
    g_mutex_unlock(&steps.lock);
}

bool stepper_await(void)
{
    const gint64 end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    bool there;

    g_mutex_lock(&steps.lock);
    while (!steps.there && g_cond_wait_until(&steps.changed, &steps.lock, end)) {
    }
    there = steps.there;
    g_mutex_unlock(&steps.lock);
    return there;
}

void stepper_go_on(void)
{
    g_mutex_lock(&steps.lock);
    steps.let_go = true;
    steps.armed = false;
    g_cond_broadcast(&steps.changed);
    g_mutex_unlock(&steps.lock);
}

#define SET(what)                                                                                  \
    do {                                                                                           \
        g_mutex_lock(&steps.lock);                                                                 \
        what;                                                                                      \
        g_mutex_unlock(&steps.lock);                                                               \
    } while (0)

void stepper_cut(void)
{
    SET(steps.cut = true);
}

void stepper_cut_off(VmfRole role)
{
    SET(steps.cut = true; steps.cut_off = role);
}

void stepper_silence(void)
{
    SET(steps.silent = true);
}

void stepper_allow_connecting(bool allow)
{
    SET(steps.no_connecting = !allow);
}

void stepper_swallow(VmfRole role, unsigned message)
{
    SET(steps.swallow_role = role; steps.swallow = message);
}

void stepper_clog(VmfRole role)
{
    SET(steps.clogged = role; steps.waits[role] = 0);
}

void stepper_flood(VmfRole role)
{
    unsigned floods = 0;

    SET(steps.flooded = role; steps.floods = 0);
    while (role && floods < 100000) {
        g_usleep(1000);
        SET(floods = steps.floods);
    }
}

unsigned stepper_waits(VmfRole role)
{
    unsigned waits;

    SET(waits = steps.waits[role]);
    return waits;
}

void stepper_fail_silently(StepCall call)
{
    SET(steps.fails = call);
}

/* --- the threads' side --- */

static bool fails_now(StepCall call)
{
    bool fails;

    g_mutex_lock(&steps.lock);
    fails = steps.fails == call;
    if (fails) {
        steps.fails = 0;
    }
    g_mutex_unlock(&steps.lock);
    return fails;
}

/* Only the session's own connection is stopped and cut. */
static bool is_first(const VmfConn *conn)
{
    return steps.first[conn->role] == conn;
}

static void come_to(const VmfConn *conn, StepWhen when, unsigned message)
{
    g_mutex_lock(&steps.lock);
    if (steps.armed && !steps.there && is_first(conn) && steps.stop.role == conn->role &&
        steps.stop.when == when && steps.stop.message == message) {
        steps.there = true;
        g_cond_broadcast(&steps.changed);
        while (!steps.let_go) {
            g_cond_wait(&steps.changed, &steps.lock);
        }
    }
    g_mutex_unlock(&steps.lock);
}

/* Whether that side notices the cut. The other side hears nothing any more. */
static bool notices(const VmfConn *conn)
{
    return !steps.cut_off || steps.cut_off == conn->role;
}

/* The first connection of each role is the session's, because its handshake comes first. */
static bool is_cut(const VmfConn *conn)
{
    bool cut;

    g_mutex_lock(&steps.lock);
    if (!steps.first[conn->role]) {
        steps.first[conn->role] = conn;
    }
    cut = steps.cut && is_first(conn) && notices(conn);
    g_mutex_unlock(&steps.lock);
    return cut;
}

static bool is_silent(const VmfConn *conn)
{
    bool silent;

    SET(silent = (steps.silent || (steps.cut && !notices(conn))) && is_first(conn));
    return silent;
}

static VmfControlResult broken(GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_PEER_LOST, "the test has cut the connection");
    return VMF_CONTROL_ERROR;
}

static unsigned type_of(const void *message)
{
    const uint8_t *bytes = message;

    return (unsigned)bytes[4] << 8 | bytes[5];
}

static VmfControlResult control_send(VmfConn *conn, const struct iovec *iov, unsigned iovcnt,
                                     GError **error)
{
    const unsigned type = type_of(iov[0].iov_base);
    VmfControlResult result;
    bool swallow, clogged;

    come_to(conn, STEP_BEFORE_SEND, type);
    if (is_cut(conn)) {
        return broken(error);
    }
    SET(swallow = steps.swallow && steps.swallow_role == conn->role && steps.swallow == type;
        clogged = steps.clogged == conn->role);
    if (clogged) {
        return VMF_CONTROL_AGAIN;
    }
    result = swallow || is_silent(conn) ? VMF_CONTROL_DONE
                                        : base->control_send(conn, iov, iovcnt, error);
    if (result == VMF_CONTROL_DONE) {
        come_to(conn, STEP_AFTER_SEND, type);
    }
    return result;
}

static VmfControlResult control_receive(VmfConn *conn, const uint8_t **message, size_t *size,
                                        GError **error)
{
    static uint8_t heartbeat[MESSAGE_HEADER_BYTES];
    VmfControlResult result;
    unsigned last;
    bool flooded;

    SET(last = steps.last_received[conn->role]; flooded = steps.flooded == conn->role;
        message_header_encode(&(MessageHeader){.type = MESSAGE_HEARTBEAT}, heartbeat));
    if (flooded) {
        SET(steps.floods++);
        *message = heartbeat;
        *size = sizeof(heartbeat);
        return VMF_CONTROL_DONE;
    }
    if (last) {
        come_to(conn, STEP_NEXT_LOOK, last);
    }
    if (is_cut(conn)) {
        return broken(error);
    }
    result = base->control_receive(conn, message, size, error);
    if (result == VMF_CONTROL_DONE) {
        come_to(conn, STEP_RECEIVED, type_of(*message));
        SET(steps.last_received[conn->role] = type_of(*message));
        if (is_cut(conn)) {
            return broken(error);
        }
    }
    if (is_silent(conn) && result != VMF_CONTROL_ERROR) {
        return VMF_CONTROL_AGAIN;
    }
    return result;
}

static bool control_wait(VmfConn *conn, int wake_fd, bool want_send, int timeout_ms, GError **error)
{
    bool clogged, cut;

    if (conn->role == VMF_ROLE_SOURCE && fails_now(STEP_CONTROL_WAIT)) {
        return false;
    }
    SET(clogged = steps.clogged == conn->role; cut = steps.cut && is_first(conn) && notices(conn);
        steps.waits[conn->role]++);
    if (cut) {
        timeout_ms = 0;
    } else if (!clogged) {
        timeout_ms = MIN(timeout_ms, 50); /* a cut is noticed without a message */
    }
    if (is_silent(conn)) { /* there may be bytes that nobody looks at */
        g_usleep(1000);
        return true;
    }
    return base->control_wait(conn, wake_fd, want_send && !clogged, timeout_ms, error);
}

/* A connection that names its table would go around this one. */
static VmfConn *wrapped(VmfConn *conn)
{
    if (conn && conn->ops == base) {
        conn->ops = &table;
    }
    return conn;
}

static VmfConn *connect_step(const VmfUri *uri, const uint8_t uuid[VMF_UUID_BYTES],
                             GCancellable *cancel, GError **error)
{
    bool refused;

    SET(refused = steps.no_connecting);
    if (refused) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_CONNECT, "the test lets nobody connect");
        return NULL;
    }
    return wrapped(base->connect(uri, uuid, cancel, error));
}

static VmfConn *accept_step(VmfTransportListener *listener, GCancellable *cancel, GError **error)
{
    return fails_now(STEP_ACCEPT) ? NULL : wrapped(base->accept(listener, cancel, error));
}

static bool serve_step(VmfConn *conn, unsigned channel, GError **error)
{
    return !fails_now(STEP_SERVE) && base->serve(conn, channel, error);
}

static bool revoke_step(VmfConn *conn, GError **error)
{
    return !fails_now(STEP_REVOKE) && base->revoke(conn, error);
}

static char *listener_address(VmfTransportListener *listener)
{
    g_autofree char *address = base->listener_address(listener);

    return g_strconcat("step", strchr(address, ':'), NULL);
}

bool stepper_wrap(const char *scheme, GError **error)
{
    base = vmf_transport_find(scheme, error);
    if (!base) {
        return false;
    }
    table = *base;
    table.scheme = "step";
    table.connect = connect_step;
    table.accept = accept_step;
    table.listener_address = listener_address;
    table.control_send = control_send;
    table.control_receive = control_receive;
    table.control_wait = control_wait;
    table.serve = serve_step;
    table.revoke = revoke_step;
    return vmf_transport_register(&table, error);
}

void stepper_reset(void)
{
    g_mutex_lock(&steps.lock);
    steps.armed = steps.there = steps.let_go = false;
    steps.cut_off = 0;
    steps.cut = steps.silent = steps.no_connecting = false;
    steps.swallow = 0;
    steps.clogged = 0;
    steps.fails = 0;
    memset(steps.first, 0, sizeof(steps.first));
    memset(steps.last_received, 0, sizeof(steps.last_received));
    g_mutex_unlock(&steps.lock);
}
