/* SPDX-License-Identifier: BSD-2-Clause */
/* device-arrive.h -- pieces of device state that arrive at the destination */

#ifndef VMF_DEVICE_ARRIVE_H
#define VMF_DEVICE_ARRIVE_H

#include "device-set.h"

/*
 * The devices once the destination expects them: from then on nothing is added, and what the peer
 * sends may look at them. NULL before. The caller holds the lock.
 */
VmfDevices *devices_expecting_locked(VmfSession *s);
/* The buffer of that index, if a piece of it is here; or NULL. The caller holds the lock. */
DeviceArrival *device_find_arrival(Device *device, uint32_t index);
/* device_begin and device_done of VmfConnHost. The channel's thread. */
void *device_begin(VmfConn *conn, unsigned number, const VmfDeviceHeader *header, GError **error);
bool device_done(VmfConn *conn, unsigned number, GError **error);

#endif
