/* SPDX-License-Identifier: BSD-2-Clause */
/* device-life.h -- making and freeing the devices of a session */

#ifndef VMF_DEVICE_LIFE_H
#define VMF_DEVICE_LIFE_H

#include "device-set.h"

/* Makes the devices of a session, none at first. */
VmfDevices *devices_new(VmfSession *session);
/*
 * Joins the jobs' threads, and frees all. The connection is closed before, because the peer may
 * write to the devices' memory until then. NULL is allowed.
 */
void devices_free(VmfDevices *devices);
/* What the session calls of its devices. */
extern const SessionDeviceOps device_ops;

#endif
