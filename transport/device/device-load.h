/* SPDX-License-Identifier: BSD-2-Clause */
/* device-load.h -- the destination's devices */

#ifndef VMF_DEVICE_LOAD_H
#define VMF_DEVICE_LOAD_H

#include "device-set.h"

/* SWITCHOVER_START has come. The control thread. */
bool devices_handle_switchover(VmfSession *s, const MessageHeader *header, const uint8_t *payload,
                               GError **error);

#endif
