/* SPDX-License-Identifier: BSD-2-Clause */
/* saved-vm.h -- a small VM as QEMU migrates it into a file, for the tests */

#ifndef VMF_TESTS_SAVED_VM_H
#define VMF_TESTS_SAVED_VM_H

#include <glib.h>

/*
 * One RAM block of some pages, of which every third is zero, and one device;
 * `content' tells two such VMs apart. Without `footers' it is of an old machine type.
 */
GByteArray *saved_vm_new(unsigned pages, guint8 content, gboolean footers, gboolean description);

#endif
