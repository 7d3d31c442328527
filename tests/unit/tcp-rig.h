/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-rig.h -- a listener of tcp: and clients of every kind, for its tests */

#ifndef VMF_TESTS_TCP_RIG_H
#define VMF_TESTS_TCP_RIG_H

#include "tcp-side.h"

#define PATIENT "connect-timeout=20s"

extern const uint8_t our_uuid[VMF_UUID_BYTES];

/* A listener of the transport and threads that accept on it. */
typedef struct Rig {
    VmfTransportListener *listener;
    VmfUri *uri; /* to connect to */
    uint16_t port;
    GCancellable *cancel;
} Rig;

typedef struct Accepting {
    Rig *rig;
    VmfConn *conn;
    GError *error;
    GThread *thread;
} Accepting;

/* A listener of tcp: on a free port of the loopback address. */
void rig_init(Rig *rig, const char *options);
void rig_clear(Rig *rig);
/* A raw socket that is connected to the port. */
int rig_dial(uint16_t port);
/* The same, and sends the first `size' bytes of a preamble. */
int rig_dial_as(uint16_t port, TcpKind kind, unsigned channel, const uint8_t *uuid, size_t size);
/* The same, as a channel of a session. */
int rig_dial_channel(const Rig *rig, unsigned channel, const uint8_t *uuid);
/* Sends a text as a control message. */
void control_say(VmfConn *conn, const char *text);
/* Fails the test unless that text comes. */
void expect_control_said(VmfConn *conn, const char *text);
/* A thread that accepts; its end gives the connection of a source that has greeted. */
void accept_start(Accepting *a, Rig *rig);
VmfConn *accept_finish(Accepting *a);
/* A source's control connection, which has greeted. */
VmfConn *rig_connect(const Rig *rig);
/* Fails the test unless two control connections are the ends of one. */
void expect_joined(VmfConn *a, VmfConn *b);

#endif
