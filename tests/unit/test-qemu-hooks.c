/* SPDX-License-Identifier: BSD-2-Clause */
/* test-qemu-hooks.c -- a stock destination gets the hooks that RAM follows, and no others */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "qemu-stream/qemu-hooks.h"

#define START "QEVM\0\0\0\3\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4\0\0\0\0\0\0\20\4\3rom\0\0\0\0\0\0\20\0"
#define PART "\2\0\0\0\2"
#define LAST "\3\0\0\0\2"
#define HOOK "\0\0\0\0\0\0\0\200"
#define EOS "\0\0\0\0\0\0\0\20"
#define FOOTER "\176\0\0\0\2"
#define ZERO_PAGE "\0\0\0\0\0\0\0\2\3rom\0"
#define COMMAND "\10\0\1\0\0"
#define DEVICES "\4 devices"
/* Stands for RAM in what is put and in what goes out; no stream here has that byte. */
#define RAM "\377"

#define check(put, expected)                                                                       \
    check_bytes((const uint8_t *)(put), sizeof(put) - 1, (const uint8_t *)(expected),              \
                sizeof(expected) - 1)

static bool take(void *opaque, const VmfQemuItem *item, GError **error)
{
    (void)error;
    qemu_hooks_item(opaque, item);
    return true;
}

static void check_bytes(const uint8_t *put, size_t size, const uint8_t *expected,
                        size_t expected_size)
{
    QemuHooks hooks;
    VmfQemuStream *stream = vmf_qemu_stream_new(take, &hooks);

    qemu_hooks_init(&hooks);
    for (size_t i = 0; i < size; i++) {
        if (put[i] == (uint8_t)RAM[0]) {
            assert_true(qemu_hooks_ram(&hooks));
            g_byte_array_append(hooks.out, (const uint8_t *)RAM, 1);
        } else {
            assert_int_equal(vmf_qemu_stream_scan(stream, &put[i], 1, false, NULL), 1);
        }
    }
    assert_int_equal(hooks.out->len, expected_size);
    assert_memory_equal(hooks.out->data, expected, expected_size);
    qemu_hooks_clear(&hooks);
    vmf_qemu_stream_free(stream);
}

static void hook__goes_only_with_ram(void **state)
{
    (void)state;
    check(START HOOK EOS FOOTER PART HOOK EOS FOOTER LAST HOOK EOS FOOTER DEVICES,
          START EOS FOOTER PART EOS FOOTER LAST EOS FOOTER DEVICES);
    check(START HOOK EOS FOOTER PART HOOK RAM EOS FOOTER LAST HOOK EOS FOOTER DEVICES,
          START EOS FOOTER PART HOOK RAM EOS FOOTER LAST EOS FOOTER DEVICES);
    check(START HOOK RAM RAM EOS FOOTER LAST HOOK RAM EOS FOOTER DEVICES,
          START HOOK RAM RAM EOS FOOTER LAST HOOK RAM EOS FOOTER DEVICES);
}

static void hook__lasts_over_the_parts_of_ram(void **state)
{
    (void)state;
    check(START HOOK RAM EOS FOOTER PART HOOK RAM EOS FOOTER PART HOOK EOS FOOTER PART HOOK RAM EOS
              FOOTER LAST HOOK EOS FOOTER DEVICES,
          START HOOK RAM RAM RAM EOS FOOTER LAST EOS FOOTER DEVICES);
    check(START HOOK RAM EOS PART HOOK RAM EOS LAST HOOK EOS DEVICES,
          START HOOK RAM RAM EOS LAST EOS DEVICES);
}

static void hook__ends_with_anything_else(void **state)
{
    (void)state;
    check(START HOOK RAM EOS FOOTER COMMAND PART HOOK RAM EOS FOOTER LAST,
          START HOOK RAM EOS FOOTER COMMAND PART HOOK RAM EOS FOOTER LAST);
    check(START HOOK RAM EOS FOOTER PART ZERO_PAGE HOOK RAM EOS FOOTER LAST,
          START HOOK RAM EOS FOOTER PART ZERO_PAGE HOOK RAM EOS FOOTER LAST);
    check(START HOOK RAM ZERO_PAGE HOOK RAM EOS FOOTER LAST,
          START HOOK RAM ZERO_PAGE HOOK RAM EOS FOOTER LAST);
}

static void hook__twice_in_a_section_is_one(void **state)
{
    (void)state;
    check(START HOOK HOOK RAM HOOK RAM EOS FOOTER LAST, START HOOK RAM RAM EOS FOOTER LAST);
}

static void scan(VmfQemuStream *stream, const char *bytes, size_t size)
{
    assert_int_equal(vmf_qemu_stream_scan(stream, (const uint8_t *)bytes, size, false, NULL), size);
}
#define SCAN(stream, bytes) scan(stream, bytes, sizeof(bytes) - 1)

static void ram__is_refused_where_there_is_no_hook(void **state)
{
    QemuHooks hooks;
    VmfQemuStream *stream = vmf_qemu_stream_new(take, &hooks);

    (void)state;
    qemu_hooks_init(&hooks);
    assert_false(qemu_hooks_ram(&hooks));
    SCAN(stream, START);
    assert_false(qemu_hooks_ram(&hooks));
    SCAN(stream, HOOK);
    assert_true(qemu_hooks_ram(&hooks));
    SCAN(stream, EOS);
    assert_false(qemu_hooks_ram(&hooks));
    SCAN(stream, FOOTER PART);
    assert_false(qemu_hooks_ram(&hooks));
    SCAN(stream, HOOK);
    assert_true(qemu_hooks_ram(&hooks));
    qemu_hooks_clear(&hooks);
    vmf_qemu_stream_free(stream);
}

static void release__sends_what_is_between_two_hooks_and_nothing_else(void **state)
{
    QemuHooks hooks;
    VmfQemuStream *stream = vmf_qemu_stream_new(take, &hooks);

    (void)state;
    qemu_hooks_init(&hooks);
    SCAN(stream, START HOOK);
    qemu_hooks_release(&hooks);
    assert_int_equal(hooks.out->len, sizeof(START) - 1);
    assert_true(qemu_hooks_ram(&hooks));
    qemu_hooks_release(&hooks);
    assert_true(qemu_hooks_ram(&hooks));
    g_byte_array_set_size(hooks.out, 0);
    SCAN(stream, EOS FOOTER);
    assert_int_equal(hooks.out->len, 0);
    qemu_hooks_release(&hooks);
    SCAN(stream, PART HOOK);
    assert_true(qemu_hooks_ram(&hooks));
    assert_int_equal(hooks.out->len, sizeof(EOS FOOTER PART HOOK) - 1);
    assert_memory_equal(hooks.out->data, EOS FOOTER PART HOOK, hooks.out->len);
    qemu_hooks_clear(&hooks);
    vmf_qemu_stream_free(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hook__goes_only_with_ram),
        cmocka_unit_test(hook__lasts_over_the_parts_of_ram),
        cmocka_unit_test(hook__ends_with_anything_else),
        cmocka_unit_test(hook__twice_in_a_section_is_one),
        cmocka_unit_test(ram__is_refused_where_there_is_no_hook),
        cmocka_unit_test(release__sends_what_is_between_two_hooks_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
