/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu.h -- what a QEMU with vmferry puts before its migration stream */

#ifndef VMFERRY_QEMU_H
#define VMFERRY_QEMU_H

/*
 * A source puts two be32 numbers before QEMU's stream, if the peer is a vmferry: this one, then
 * flags. If the peer is stock QEMU (vmf_session_peer_is_qemu()), the stream begins at once.
 */
#define VMF_QEMU_GREETING 0x514d5531u /* "QMU1" */
/* QEMU's capability return-path is on: its destination tells when it runs the VM. */
#define VMF_QEMU_RETURN_PATH 1u
/* The stream has the hooks of RDMA in its sections of RAM (an unpatched QEMU is the source). */
#define VMF_QEMU_HOOKS 2u

#endif
