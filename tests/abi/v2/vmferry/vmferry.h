/* SPDX-License-Identifier: BSD-2-Clause */
/* vmferry.h -- everything a VMM needs; transport plugins include transport.h as well */

#ifndef VMFERRY_VMFERRY_H
#define VMFERRY_VMFERRY_H

#include <vmferry/device.h>
#include <vmferry/error.h>
#include <vmferry/file.h>
#include <vmferry/qemu.h>
#include <vmferry/ram.h>
#include <vmferry/session.h>
#include <vmferry/uri.h>
#include <vmferry/version.h>

#endif
