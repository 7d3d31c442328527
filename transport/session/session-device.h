/* SPDX-License-Identifier: BSD-2-Clause */
/* session-device.h -- what a session calls of its devices, which are in a folder above it */

#ifndef VMF_SESSION_DEVICE_H
#define VMF_SESSION_DEVICE_H

#include "session-state.h"

/* A session with stock QEMU calls only is_sending_locked. */
typedef struct SessionDeviceOps {
    /* DEVICE_WINDOW, SWITCHOVER_START, DEVICE_CREDIT. The control thread. */
    bool (*message)(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                    GError **error);
    /* A piece of device state arrives, and has arrived: see VmfConnHost. A channel's thread. */
    void *(*begin)(VmfConn *conn, unsigned channel, const VmfDeviceHeader *header, GError **error);
    bool (*done)(VmfConn *conn, unsigned channel, GError **error);
    /* Source: whether device state still has to be sent. The caller holds the lock. */
    bool (*is_sending_locked)(const VmfDevices *devices);
} SessionDeviceOps;

#endif
