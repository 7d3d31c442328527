/* SPDX-License-Identifier: BSD-2-Clause */
/* session-device.h -- what a session asks of its devices, which are a room above it */

#ifndef VMF_SESSION_DEVICE_H
#define VMF_SESSION_DEVICE_H

#include "session-state.h"

/* All of these are called for a session with vmferry alone. */
typedef struct SessionDeviceOps {
    /* DEVICE_WINDOW, SWITCHOVER_START, DEVICE_CREDIT. The control thread. */
    bool (*message)(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                    GError **error);
    /* A piece of device state arrives, and is here: see VmfConnHost. A channel's thread. */
    void *(*begin)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, GError **error);
    bool (*done)(VmfConn *conn, unsigned channel, GError **error);
    /* Source: whether state is still to be sent. The caller holds the lock. */
    bool (*is_sending_locked)(const VmfDevices *devices);
} SessionDeviceOps;

#endif
