/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp-side.h -- one side of a socket transport with a recording host, for its tests */

#ifndef VMF_TESTS_TCP_SIDE_H
#define VMF_TESTS_TCP_SIDE_H

#include <vmferry/plugin/transport.h>

#include "socket/tcp-transport.h"
#include "socket/tcp.h"

#define SIDE_RAM (1u << 20)
#define SIDE_QUARTER (SIDE_RAM / 4)
#define SIDE_CHANNELS_MAX 4
#define SIDE_DEVICE_MAX (1u << 16)

/* The part of the engine that the tests need for a connection. */
typedef struct Side {
    VmfConn *conn;
    TcpConn *tcp; /* `conn' as its own type */
    GCancellable *cancel;
    VmfRamBlocks *blocks;
    const VmfRamBlock *block;
    uint8_t *ram;

    /* What the host was told, for each channel. Read it when the channel is quiet. */
    uint64_t sync_seen[SIDE_CHANNELS_MAX]; /* atomic */
    uint64_t zeroed[SIDE_CHANNELS_MAX];    /* calls; atomic */
    VmfDeviceHeader device[SIDE_CHANNELS_MAX];
    uint8_t *device_bytes[SIDE_CHANNELS_MAX];
    unsigned devices_done[SIDE_CHANNELS_MAX];
    const void *device_sent[SIDE_CHANNELS_MAX];

    GThread *serving[SIDE_CHANNELS_MAX];
    GError *errors[SIDE_CHANNELS_MAX];
} Side;

/* Takes a connection over, as the engine does after connect or accept. */
void side_init(Side *side, VmfConn *conn, unsigned channels, uint64_t max_inflight);
/*
 * A side whose control connection and channels are each one end of a socket pair. The caller has
 * the other ends, non-blocking: peers[0] is that of control.
 */
void side_init_pairs(Side *side, VmfRole role, unsigned channels, uint64_t max_inflight,
                     int *control_peer, int *channel_peers);
void side_clear(Side *side);

/*
 * Destination: starts a thread that serves a channel, and gets its result: true, or false with
 * *error.
 */
void side_serve(Side *side, unsigned channel);
bool side_served(Side *side, unsigned channel, GError **error);

/* Parses a URI, which must be valid. */
VmfUri *side_uri(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* Fails the test unless *error has that code and its message has that text. Clears *error. */
void expect_error(GError **error, int code, const char *says);

/* For raw peers: sends everything, or the test fails. */
void peer_send(int fd, const void *bytes, size_t size);
void peer_receive(int fd, void *bytes, size_t size);
/* Whether the other end closes within a few seconds, and has sent nothing. */
bool peer_was_closed(int fd);

#endif
