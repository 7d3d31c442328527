/* SPDX-License-Identifier: BSD-2-Clause */
/* test-qemu-end.c -- a saved VM that was cut, or has more bytes after its end, is not whole */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "qemu-end.h"
#include "support/saved-vm.h"

#define PAGES 3
/* After the end of RAM: the device's section with its footer, the end byte, the description. */
#define DEVICE_BYTES (5 + 6 + 8 + 24 + 5)

typedef struct Whole {
    GByteArray *vm;
    uint64_t device; /* where device state begins */
} Whole;

static Whole whole(gboolean footers, gboolean description)
{
    Whole w = {.vm = saved_vm_new(PAGES, 1, footers, description)};
    g_autoptr(GByteArray) bare = saved_vm_new(PAGES, 1, footers, FALSE);

    w.device = bare->len - 1 - DEVICE_BYTES + (footers ? 0 : 5);
    assert_int_equal(w.vm->data[w.device], 4);
    return w;
}

/* Looks at `size' bytes of the VM, and then `zeros' zeros, which take no memory. */
static QemuEnd look(const Whole *w, uint64_t size, uint64_t zeros, gboolean footers)
{
    int fd = memfd_create("saved", MFD_CLOEXEC);
    g_autoptr(GError) error = NULL;
    QemuEnd end;

    assert_int_equal(write(fd, w->vm->data, size), size);
    assert_int_equal(ftruncate(fd, (off_t)(size + zeros)), 0);
    if (!qemu_end_find(fd, w->device, size + zeros, footers, &end, &error)) {
        fail_msg("%s", error->message);
    }
    close(fd);
    return end;
}

static void vm__that_is_whole_has_an_end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) { /* without both nothing proves the end: see below */
        const gboolean footers = i != 0, description = i != 2;
        Whole w = whole(footers, description);

        assert_int_equal(look(&w, w.vm->len, 0, footers), QEMU_END_THERE);
        g_byte_array_unref(w.vm);
    }
}

static void vm__that_was_cut_anywhere_has_no_end(void **state)
{
    Whole w = whole(TRUE, TRUE);

    (void)state;
    for (uint64_t size = w.device; size < w.vm->len; size++) {
        if (size == w.device + DEVICE_BYTES + 1) {
            continue; /* all except the description, which nobody needs */
        }
        assert_int_equal(look(&w, size, 0, TRUE), QEMU_END_MISSING);
    }
    g_byte_array_unref(w.vm);
}

static void vm__that_was_cut_and_goes_on_with_zeros_has_no_end(void **state)
{
    Whole w = whole(TRUE, TRUE);

    (void)state;
    for (uint64_t size = w.device; size < w.vm->len - 1; size++) {
        if (size != w.device + DEVICE_BYTES) { /* a zero at that place is the end byte */
            assert_int_equal(look(&w, size, 1, TRUE), QEMU_END_MISSING);
        }
        assert_int_equal(look(&w, size, 100, TRUE), QEMU_END_MISSING);
    }
    g_byte_array_unref(w.vm);
}

static void hole__of_terabytes_after_the_vm_is_no_end_and_takes_no_memory(void **state)
{
    Whole w = whole(TRUE, TRUE);

    (void)state;
    assert_int_equal(look(&w, w.vm->len, 4ull << 40, TRUE), QEMU_END_MISSING);
    g_byte_array_unref(w.vm);
}

static void machine__that_is_old_has_a_possible_end(void **state)
{
    Whole w = whole(FALSE, FALSE);

    (void)state;
    assert_int_equal(look(&w, w.vm->len, 0, FALSE), QEMU_END_POSSIBLE);
    assert_int_equal(look(&w, w.device + 10, 0, FALSE), QEMU_END_MISSING);
    assert_int_equal(look(&w, w.device, 0, FALSE), QEMU_END_MISSING);
    g_byte_array_unref(w.vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vm__that_is_whole_has_an_end),
        cmocka_unit_test(vm__that_was_cut_anywhere_has_no_end),
        cmocka_unit_test(vm__that_was_cut_and_goes_on_with_zeros_has_no_end),
        cmocka_unit_test(hole__of_terabytes_after_the_vm_is_no_end_and_takes_no_memory),
        cmocka_unit_test(machine__that_is_old_has_a_possible_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
