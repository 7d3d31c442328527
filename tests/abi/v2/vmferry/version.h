/* SPDX-License-Identifier: BSD-2-Clause */
/* version.h -- the version these headers belong to */

#ifndef VMFERRY_VERSION_H
#define VMFERRY_VERSION_H

#define VMF_VERSION "0.1.0"

#endif
