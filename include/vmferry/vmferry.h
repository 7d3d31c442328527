/* SPDX-License-Identifier: BSD-2-Clause */
/* vmferry.h -- what a VMM needs; qemu-stream.h and plugin/transport.h are included by themselves */

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
