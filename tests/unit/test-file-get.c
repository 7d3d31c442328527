/* SPDX-License-Identifier: BSD-2-Clause */
/* test-file-get.c -- the migration file's reading side, over a fake that answers by a script */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fake-file.h"
#include "file/file-state.h"

#define IN_SIZE 200000

typedef struct Fixture {
    Fake fake;
    VmfFile *file;
    uint8_t in[IN_SIZE];
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

/* --- bytes --- */

static void get__is_big_endian_over_refills_of_one_byte(void **state)
{
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 2, 'o', 'k'};
    static const int one_by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1,       1,
                                     1, 1, 1, 1, 1, 1, 1, 1, FAKE_END};
    Fixture *f = *state;
    char text[256];

    memcpy(f->in, bytes, sizeof(bytes));
    f->fake.script = one_by_one;
    assert_int_equal(vmf_get_byte(f->file), 0x01);
    assert_int_equal(vmf_get_be16(f->file), 0x0203);
    assert_int_equal(vmf_get_be32(f->file), 0x04050607);
    assert_true(vmf_get_be64(f->file) == 0x08090a0b0c0d0e0full);
    assert_int_equal(vmf_file_tell(f->file), 15);
    assert_true(vmf_get_counted_string(f->file, text));
    assert_string_equal(text, "ok");
    assert_int_equal(vmf_file_tell(f->file), 18);
    assert_true(vmf_file_at_end(f->file));
    assert_true(vmf_file_check(f->file, NULL));
}

static void get__keeps_order_over_many_sizes(void **state)
{
    Fixture *f = *state;
    uint8_t piece[40000];
    size_t at = 0;

    for (unsigned i = 1; at < IN_SIZE; i++) {
        size_t size = MIN((size_t)i * i * 7919 % sizeof(piece), IN_SIZE - at);

        assert_int_equal(vmf_get_buffer(f->file, piece, size), size);
        assert_memory_equal(piece, f->in + at, size);
        at += size;
        assert_int_equal(vmf_file_tell(f->file), at);
    }
    assert_true(vmf_file_at_end(f->file));
}

static void get_buffer__reads_large_pieces_straight_into_place(void **state)
{
    Fixture *f = *state;
    g_autofree uint8_t *into = g_malloc(100000);

    assert_int_equal(vmf_get_byte(f->file), f->in[0]);
    assert_int_equal(vmf_file_buffered(f->file), FILE_BUFFER - 1);
    assert_int_equal(vmf_get_buffer(f->file, into, 100000), 100000);
    assert_ptr_equal(f->fake.last_into, into + FILE_BUFFER - 1);
    assert_memory_equal(into, f->in + 1, 100000);
    assert_int_equal(f->fake.in_taken, 100001); /* not a byte more than was asked for */
}

/* --- the end --- */

static void get__past_the_end_says_where(void **state)
{
    Fixture *f = *state;

    f->fake.in_size = 6;
    assert_int_equal(vmf_get_be32(f->file), 0x00010203);
    assert_true(vmf_file_check(f->file, NULL));
    assert_int_equal(vmf_get_be32(f->file), 0);
    assert_failed(f->file, VMF_ERROR_EOF, "ended at byte 6");
    assert_int_equal(vmf_get_byte(f->file), 0); /* the error stays */
}

static void get_buffer__at_the_end_is_short(void **state)
{
    Fixture *f = *state;
    g_autofree uint8_t *into = g_malloc(60000);

    f->fake.in_size = 50000;
    assert_int_equal(vmf_get_buffer(f->file, into, 60000), 50000);
    assert_memory_equal(into, f->in, 50000);
    assert_failed(f->file, VMF_ERROR_EOF, "10000 bytes short");
}

static void get_counted_string__cut_short_is_an_error(void **state)
{
    Fixture *f = *state;
    char text[256] = "before";

    f->in[0] = 200;
    f->fake.in_size = 200;
    assert_false(vmf_get_counted_string(f->file, text));
    assert_string_equal(text, "");
    assert_failed(f->file, VMF_ERROR_EOF, "ended at byte 200, 1 bytes short");
}

static void get_counted_string__of_255_bytes_fits(void **state)
{
    Fixture *f = *state;
    char text[256];

    memset(f->in, 'a', 256);
    f->in[0] = 255;
    assert_true(vmf_get_counted_string(f->file, text));
    assert_int_equal(strlen(text), 255);
    assert_int_equal(vmf_file_tell(f->file), 256);
}

static void at_end__is_not_reached_while_bytes_are_left(void **state)
{
    Fixture *f = *state;

    f->fake.in_size = 1;
    assert_false(vmf_file_at_end(f->file));
    vmf_get_byte(f->file);
    assert_true(vmf_file_at_end(f->file));
    assert_true(vmf_file_check(f->file, NULL)); /* a peek is not a failure */
}

/* --- peek and skip --- */

static void peek__shows_bytes_over_refills_without_taking_them(void **state)
{
    static const int pieces[] = {3, 2, 100000, 100000, 100000, FAKE_END};
    Fixture *f = *state;
    const uint8_t *data;

    f->fake.script = pieces;
    assert_int_equal(vmf_peek_buffer(f->file, &data, 4, 0), 4); /* across a refill */
    assert_memory_equal(data, f->in, 4);
    assert_int_equal(vmf_peek_buffer(f->file, &data, 10, 20), 10);
    assert_memory_equal(data, f->in + 20, 10);
    assert_int_equal(vmf_file_tell(f->file), 0);
    vmf_skip(f->file, 20);
    assert_int_equal(vmf_file_tell(f->file), 20);
    assert_int_equal(vmf_get_byte(f->file), f->in[20]);
    /* The whole buffer, from its middle: what is left moves to its start. */
    assert_int_equal(vmf_peek_buffer(f->file, &data, FILE_BUFFER, 0), FILE_BUFFER);
    assert_memory_equal(data, f->in + 21, FILE_BUFFER);
    vmf_skip(f->file, FILE_BUFFER);
    assert_int_equal(vmf_get_byte(f->file), f->in[21 + FILE_BUFFER]);
}

static void peek__at_the_end_shows_fewer_and_is_no_error(void **state)
{
    Fixture *f = *state;
    const uint8_t *data;

    f->fake.in_size = 5;
    assert_int_equal(vmf_peek_buffer(f->file, &data, 10, 2), 3);
    assert_memory_equal(data, f->in + 2, 3);
    assert_int_equal(vmf_peek_buffer(f->file, &data, 10, 5), 0);
    assert_int_equal(vmf_peek_buffer(f->file, &data, 10, 100), 0);
    assert_true(vmf_file_check(f->file, NULL));
    assert_int_equal(vmf_get_byte(f->file), f->in[0]);
}

static void peek__beyond_the_buffer_is_an_error(void **state)
{
    Fixture *f = *state;
    const uint8_t *data;

    assert_int_equal(vmf_peek_buffer(f->file, &data, FILE_BUFFER, 1), 0);
    assert_null(data);
    assert_failed(f->file, VMF_ERROR_INVALID, "cannot peek");
}

static void skip__of_more_than_was_peeked_at_is_an_error(void **state)
{
    Fixture *f = *state;
    const uint8_t *data;

    f->fake.in_size = 5;
    assert_int_equal(vmf_peek_buffer(f->file, &data, 5, 0), 5);
    vmf_skip(f->file, 6);
    assert_failed(f->file, VMF_ERROR_INVALID, "cannot skip 6");
    assert_int_equal(vmf_file_tell(f->file), 0);
}

/* --- without blocking --- */

static void nonblocking__get_takes_all_or_nothing(void **state)
{
    static const int pieces[] = {FAKE_BLOCKS, 3, FAKE_BLOCKS, 5, FAKE_END};
    Fixture *f = *state;

    f->fake.script = pieces;
    vmf_file_set_blocking(f->file, false);
    assert_int_equal(vmf_get_be64(f->file), 0);
    assert_true(vmf_file_would_block(f->file));
    assert_false(f->fake.last_blocking);
    assert_int_equal(vmf_get_be64(f->file), 0); /* three are there */
    assert_true(vmf_file_would_block(f->file));
    assert_int_equal(vmf_file_tell(f->file), 0);
    assert_int_equal(vmf_file_buffered(f->file), 3);
    assert_true(vmf_file_check(f->file, NULL));
    assert_int_equal(vmf_get_be16(f->file), 0x0001); /* from the buffer alone */
    assert_false(vmf_file_would_block(f->file));
    assert_int_equal(vmf_get_be32(f->file), 0x02030405);
    assert_false(vmf_file_would_block(f->file));
}

static void nonblocking__counted_string_takes_all_or_nothing(void **state)
{
    static const int pieces[] = {1, FAKE_BLOCKS, 4, FAKE_BLOCKS, 6, FAKE_END};
    Fixture *f = *state;
    char text[256];

    memcpy(f->in, "\012virtio-net", 11);
    f->fake.script = pieces;
    vmf_file_set_blocking(f->file, false);
    assert_false(vmf_get_counted_string(f->file, text));
    assert_true(vmf_file_would_block(f->file));
    assert_false(vmf_get_counted_string(f->file, text));
    assert_int_equal(vmf_file_tell(f->file), 0);
    assert_true(vmf_get_counted_string(f->file, text));
    assert_string_equal(text, "virtio-net");
}

static void nonblocking__large_get_returns_what_there_is(void **state)
{
    static const int pieces[] = {10, 50000, FAKE_BLOCKS, FAKE_BLOCKS, 100000, FAKE_END};
    Fixture *f = *state;
    g_autofree uint8_t *into = g_malloc(100000);

    f->fake.script = pieces;
    vmf_file_set_blocking(f->file, false);
    vmf_get_byte(f->file);
    assert_int_equal(vmf_get_buffer(f->file, into, 100000), 9 + 50000);
    assert_memory_equal(into, f->in + 1, 50009);
    assert_int_equal(vmf_get_buffer(f->file, into, 100000), 0);
    assert_true(vmf_file_would_block(f->file));
    assert_int_equal(vmf_get_buffer(f->file, into, 100000), 100000);
    assert_memory_equal(into, f->in + 50010, 100000);
    assert_true(vmf_file_check(f->file, NULL));
}

static void nonblocking__end_of_the_stream_is_an_error_and_not_a_wait(void **state)
{
    static const int pieces[] = {3, FAKE_END};
    Fixture *f = *state;

    f->fake.script = pieces;
    vmf_file_set_blocking(f->file, false);
    assert_int_equal(vmf_get_be32(f->file), 0);
    assert_false(vmf_file_would_block(f->file));
    assert_failed(f->file, VMF_ERROR_EOF, "ended at byte 3, 1 bytes short");
}

/* --- errors --- */

static void no_reason__is_an_error_too(void **state)
{
    static const int pieces[] = {FAKE_FAILS, FAKE_END};
    Fixture *f = *state;

    f->fake.script = pieces;
    f->fake.mute = true;
    assert_int_equal(vmf_get_byte(f->file), 0);
    assert_failed(f->file, VMF_ERROR_FAILED, "gave no reason");
}

static void failed_get__is_the_files_error(void **state)
{
    static const int pieces[] = {2, FAKE_FAILS, 100, FAKE_END};
    Fixture *f = *state;
    const uint8_t *data;
    char text[256];
    uint8_t byte;

    f->fake.script = pieces;
    assert_int_equal(vmf_get_be32(f->file), 0);
    assert_failed(f->file, VMF_ERROR_DEVICE, "get failed");
    assert_int_equal(vmf_get_buffer(f->file, &byte, 1), 0);
    assert_int_equal(vmf_peek_buffer(f->file, &data, 1, 0), 0);
    assert_false(vmf_get_counted_string(f->file, text));
    assert_false(vmf_file_at_end(f->file)); /* it has failed, and not ended */
    assert_failed(f->file, VMF_ERROR_DEVICE, "get failed");
    assert_int_equal(f->fake.in_taken, 2); /* the fake was not asked again */
}

static void get__does_not_believe_a_transport_that_returns_more_than_it_may(void **state)
{
    static const int pieces[] = {FAKE_TOO_MANY, FAKE_END};
    Fixture *f = *state;

    f->fake.script = pieces;
    assert_int_equal(vmf_get_byte(f->file), 0);
    assert_failed(f->file, VMF_ERROR_FAILED, "a bug of the transport");
}

static void get__does_not_spin_when_a_blocking_read_would_block(void **state)
{
    static const int pieces[] = {FAKE_BLOCKS, FAKE_END};
    Fixture *f = *state;

    f->fake.script = pieces;
    assert_int_equal(vmf_get_byte(f->file), 0);
    assert_false(vmf_file_would_block(f->file));
    assert_failed(f->file, VMF_ERROR_FAILED, "a bug of the transport");
}

static void writing__to_a_reader_is_an_error(void **state)
{
    Fixture *f = *state;

    vmf_put_be32(f->file, 1);
    assert_failed(f->file, VMF_ERROR_DIRECTION, "open for reading");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(get__is_big_endian_over_refills_of_one_byte),
        TEST(get__keeps_order_over_many_sizes),
        TEST(get_buffer__reads_large_pieces_straight_into_place),
        TEST(get__past_the_end_says_where),
        TEST(get_buffer__at_the_end_is_short),
        TEST(get_counted_string__cut_short_is_an_error),
        TEST(get_counted_string__of_255_bytes_fits),
        TEST(at_end__is_not_reached_while_bytes_are_left),
        TEST(peek__shows_bytes_over_refills_without_taking_them),
        TEST(peek__at_the_end_shows_fewer_and_is_no_error),
        TEST(peek__beyond_the_buffer_is_an_error),
        TEST(skip__of_more_than_was_peeked_at_is_an_error),
        TEST(nonblocking__get_takes_all_or_nothing),
        TEST(nonblocking__counted_string_takes_all_or_nothing),
        TEST(nonblocking__large_get_returns_what_there_is),
        TEST(nonblocking__end_of_the_stream_is_an_error_and_not_a_wait),
        TEST(no_reason__is_an_error_too),
        TEST(failed_get__is_the_files_error),
        TEST(get__does_not_believe_a_transport_that_returns_more_than_it_may),
        TEST(get__does_not_spin_when_a_blocking_read_would_block),
        TEST(writing__to_a_reader_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
