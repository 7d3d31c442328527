/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu.h -- what a QEMU with vmferry puts before its migration stream */

#ifndef VMFERRY_QEMU_H
#define VMFERRY_QEMU_H

/*
 * Two be32s, in a session of two vmferrys: this, then flags. With stock QEMU as the
 * peer (vmf_session_peer_is_qemu()) the stream begins at once.
 */
#define VMF_QEMU_GREETING 0x514d5531u /* "QMU1" */
/* QEMU's return-path capability is on: its destination tells when it runs the VM. */
#define VMF_QEMU_RETURN_PATH 1u

#endif
