/* SPDX-License-Identifier: BSD-2-Clause */
/* saved-vm.h -- a small VM as QEMU migrates it into a file, for the tests */

#ifndef VMF_TESTS_SAVED_VM_H
#define VMF_TESTS_SAVED_VM_H

#include <glib.h>

/*
 * A VM with one device, and one RAM block of which every third page is zero. `content' makes two
 * such VMs differ. Without `footers' its machine type is old.
 */
GByteArray *saved_vm_new(unsigned pages, guint8 content, gboolean footers, gboolean description);

#endif
