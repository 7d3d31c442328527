/* SPDX-License-Identifier: BSD-2-Clause */
/* device-arrive.h -- the destination receives pieces of device state */

#ifndef VMF_DEVICE_ARRIVE_H
#define VMF_DEVICE_ARRIVE_H

#include "device-set.h"

/*
 * The devices, if the destination expects them, or else NULL. From then on none is added, and
 * messages of the peer may look at them. The caller holds the lock.
 */
VmfDevices *devices_expecting_locked(VmfSession *s);
/* The buffer of that index, if a piece of it has come, or NULL. The caller holds the lock. */
DeviceArrival *device_find_arrival_locked(Device *device, uint32_t index);
/* device_begin and device_done of VmfConnHost. The channel's thread. */
void *device_begin(VmfConn *conn, unsigned number, const VmfDeviceHeader *header, GError **error);
bool device_done(VmfConn *conn, unsigned number, GError **error);

#endif
