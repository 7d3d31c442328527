/* SPDX-License-Identifier: BSD-2-Clause */
/* test-qemu-reading.c -- QEMU gets the bytes of the stream in their order, the newest held back */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fake-file.h"
#include "file/file-state.h"
#include "reading.h"

#define IN_SIZE 200000
/* The buffer of a QEMUFile, which asks for as much as there is room for in it. */
#define QEMU_BUFFER 32768

typedef struct Fixture {
    Fake fake;
    VmfFile *file;
    HeldByte held;
    uint8_t in[IN_SIZE], out[IN_SIZE + QEMU_BUFFER];
} Fixture;

static int set_up(void **state)
{
    Fixture *f = g_new0(Fixture, 1);

    f->file = fake_reader_new(&f->fake, f->in, IN_SIZE);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    Fixture *f = *state;

    vmf_file_free(f->file);
    fake_clear(&f->fake);
    g_free(f);
    return 0;
}

/*
 * Does what qemu_get_buffer() does for `size' bytes: fills the room that is left, again and again.
 */
static size_t get_as_qemu_does(Fixture *f, uint8_t *to, size_t size)
{
    size_t have = 0;

    while (have < size) {
        size_t piece = MIN(size - have, QEMU_BUFFER);

        for (size_t pending = 0; pending < piece;) {
            size_t n = reading_take_holding_back(f->file, &f->held, to + have + pending,
                                                 QEMU_BUFFER - pending);

            if (n == 0) {
                return have + pending;
            }
            assert_in_range(n, 1, QEMU_BUFFER - pending);
            pending += n;
        }
        have += piece;
    }
    return have;
}

static void buffers__that_are_large_come_in_their_order(void **state)
{
    Fixture *f = *state;
    const size_t size = 4 * QEMU_BUFFER;

    assert_int_equal(get_as_qemu_does(f, f->out, size), size);
    assert_memory_equal(f->out, f->in, size);
}

static void bytes__one_by_one_come_in_their_order(void **state)
{
    Fixture *f = *state;

    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(reading_take_holding_back(f->file, &f->held, &f->out[i], 1), 1);
    }
    assert_memory_equal(f->out, f->in, 1000);
}

static void sizes__of_any_mixture_lose_nothing(void **state)
{
    static const size_t sizes[] = {1, 2, 1, 1, 3, 32768, 1, 7, 2, 32767, 1};
    Fixture *f = *state;
    size_t have = 0;

    for (unsigned i = 0;; i++) {
        size_t n = reading_take_holding_back(f->file, &f->held, f->out + have,
                                             sizes[i % G_N_ELEMENTS(sizes)]);

        if (n == 0) {
            break;
        }
        have += n;
    }
    assert_int_equal(have, IN_SIZE - 1); /* the end has been seen; the newest byte is held */
    assert_int_equal(reading_release(&f->held, f->out + have), 1);
    assert_memory_equal(f->out, f->in, IN_SIZE);
    assert_int_equal(reading_release(&f->held, f->out), 0);
}

static void newest_byte__is_held_however_little_is_asked_for(void **state)
{
    static const int two_then_nothing[] = {2, FAKE_BLOCKS, FAKE_BLOCKS, 1, FAKE_BLOCKS, FAKE_END};
    Fixture *f = *state;

    f->fake.script = two_then_nothing;
    vmf_file_set_blocking(f->file, false);
    assert_int_equal(reading_take_holding_back(f->file, &f->held, f->out, 1), 1);
    assert_int_equal(f->out[0], f->in[0]);
    assert_int_equal(reading_take_holding_back(f->file, &f->held, f->out, 1), 0);
    assert_true(vmf_file_would_block(f->file));
    assert_int_equal(reading_take_holding_back(f->file, &f->held, f->out, 100), 0);
    assert_int_equal(reading_take_holding_back(f->file, &f->held, f->out, 100), 1);
    assert_int_equal(f->out[0], f->in[1]);
    assert_true(f->held.there);
    assert_int_equal(f->held.byte, f->in[2]);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(buffers__that_are_large_come_in_their_order),
        WITH_FIXTURE(bytes__one_by_one_come_in_their_order),
        WITH_FIXTURE(sizes__of_any_mixture_lose_nothing),
        WITH_FIXTURE(newest_byte__is_held_however_little_is_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
