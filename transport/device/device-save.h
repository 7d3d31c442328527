/* SPDX-License-Identifier: BSD-2-Clause */
/* device-save.h -- the source's devices */

#ifndef VMF_DEVICE_SAVE_H
#define VMF_DEVICE_SAVE_H

#include "device-set.h"

/*
 * Releases buffers that are not needed any more. With `wait' it waits for all, and releases them.
 * The job's thread, or the thread that frees the device.
 */
void device_release(Device *device, bool wait);
/* DEVICE_WINDOW and DEVICE_CREDIT have come. The control thread. */
bool devices_handle_window(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                           GError **error);
bool devices_handle_credit(VmfSession *s, const MessageHeader *header, GError **error);

#endif
