/* SPDX-License-Identifier: BSD-2-Clause */
/* device-life.h -- making and freeing the devices of a session */

#ifndef VMF_DEVICE_LIFE_H
#define VMF_DEVICE_LIFE_H

#include "device-set.h"

/* The devices of a session, none yet. */
VmfDevices *devices_new(VmfSession *session);
/* Joins their threads. The session's connection is closed, because the peer writes into memory. */
void devices_free(VmfDevices *devices);
/* What the session asks of them. */
extern const SessionDeviceOps device_ops;

#endif
