/* SPDX-License-Identifier: BSD-2-Clause */
/* test-file.c -- the migration file's rules, over a fake: writing, RAM, errors, rate limit */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "fake-file.h"
#include "file/file-state.h"

typedef struct Fixture {
    Fake fake;
    VmfFile *file;
    VmfRamBlock block;
} Fixture;

#define RAM_SIZE (1024 * 1024)

/* The guest's RAM cannot be read here: the file may hand it on, and never read it. */
static void *forbidden_ram(void)
{
    void *ram = mmap(NULL, RAM_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(ram != MAP_FAILED);
    return ram;
}

static int set_up(void **state)
{
    Fixture *f = g_new0(Fixture, 1);

    fake_init(&f->fake);
    f->block = (VmfRamBlock){
        .name = "pc.ram", .host = forbidden_ram(), .length = RAM_SIZE, .page_size = 4096, .fd = -1};
    f->file = vmf_file_new(&fake_writer_ops, &f->fake, VMF_FILE_WRITE, NULL);
    assert_non_null(f->file);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    Fixture *f = *state;

    vmf_file_free(f->file);
    assert_true(f->fake.closed);
    fake_clear(&f->fake);
    munmap(f->block.host, RAM_SIZE);
    g_free(f);
    return 0;
}

static void assert_calls(const Fixture *f, const char *calls)
{
    assert_string_equal(f->fake.calls->str, calls);
}

/* --- the table --- */

static void assert_refused(const VmfFileOps *ops, VmfFileMode mode, const char *text)
{
    g_autoptr(GError) error = NULL;
    Fake fake;

    fake_init(&fake);
    assert_null(vmf_file_new(ops, &fake, mode, &error));
    assert_int_equal(error->code, VMF_ERROR_INVALID);
    assert_non_null(strstr(error->message, text));
    assert_false(fake.closed); /* still the caller's */
    fake_clear(&fake);
}

static void new__refuses_half_a_ram_path_and_a_table_for_the_other_direction(void **state)
{
    VmfFileOps ops = fake_writer_ops;

    (void)state;
    ops.flush_ram_pages = NULL;
    assert_refused(&ops, VMF_FILE_WRITE, "flush_ram_pages");
    ops = fake_writer_ops;
    ops.save_ram_page = NULL;
    assert_refused(&ops, VMF_FILE_WRITE, "save_ram_page");
    assert_refused(&fake_writer_ops, VMF_FILE_READ, "get_buffer");
    assert_refused(&fake_reader_ops, VMF_FILE_WRITE, "put_buffer");
    assert_refused(&fake_reader_ops, 0, "reading or for writing");
}

/* A table of a time before save_ram_page: what lies past its size does not belong to it. */
static void new__takes_no_more_of_the_table_than_its_size(void **state)
{
    VmfFileOps ops = fake_writer_ops;
    Fake fake;
    VmfFile *file;

    (void)state;
    fake_init(&fake);
    ops.size = offsetof(VmfFileOps, save_ram_page);
    file = vmf_file_new(&ops, &fake, VMF_FILE_WRITE, NULL);
    assert_non_null(file);
    assert_false(vmf_file_has_ram_path(file));
    vmf_put_byte(file, 1);
    assert_true(vmf_file_close(file, NULL));
    assert_string_equal(fake.calls->str, "put@0+1 close ");
    fake_clear(&fake);
}

static void ops_are__tells_tables_apart(void **state)
{
    Fixture *f = *state;

    assert_true(vmf_file_ops_are(f->file, &fake_writer_ops));
    assert_false(vmf_file_ops_are(f->file, &fake_stream_only_ops));
    assert_false(vmf_file_ops_are(f->file, &fake_reader_ops));
}

static void optional_callbacks__may_all_be_missing(void **state)
{
    Fixture *f = *state;
    g_autoptr(GError) error = NULL;

    assert_int_equal(vmf_file_get_fd(f->file), -1);
    assert_null(vmf_file_get_return_path(f->file, &error));
    assert_int_equal(error->code, VMF_ERROR_UNSUPPORTED);
    assert_true(vmf_file_check(f->file, NULL)); /* a question is not a failure */
    vmf_file_shut_down(f->file);
    assert_failed(f->file, VMF_ERROR_CANCELLED, "shut down");
}

/* --- bytes --- */

static void put__is_big_endian_and_gathered(void **state)
{
    static const uint8_t expected[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                       0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 'x',
                                       'y',  'z',  0x02, 'o',  'k',  0x00};
    Fixture *f = *state;

    vmf_put_byte(f->file, 0x01);
    vmf_put_be16(f->file, 0x0203);
    vmf_put_be32(f->file, 0x04050607);
    vmf_put_be64(f->file, 0x08090a0b0c0d0e0full);
    vmf_put_buffer(f->file, "xyz", 3);
    vmf_put_counted_string(f->file, "ok");
    vmf_put_counted_string(f->file, "");
    assert_calls(f, "");
    assert_int_equal(vmf_file_tell(f->file), sizeof(expected));
    assert_true(vmf_file_flush(f->file, NULL));
    assert_true(vmf_file_flush(f->file, NULL)); /* nothing left to put */
    assert_calls(f, "put@0+22 ");
    assert_int_equal(f->fake.out->len, sizeof(expected));
    assert_memory_equal(f->fake.out->data, expected, sizeof(expected));
}

static void put__passes_large_pieces_by_reference_after_the_buffer(void **state)
{
    Fixture *f = *state;
    g_autofree uint8_t *large = g_malloc0(100000);

    vmf_put_be32(f->file, 7);
    vmf_put_buffer(f->file, large, 100000);
    assert_calls(f, "put@0+100004 ");
    assert_int_equal(f->fake.pieces, 2);
    assert_ptr_equal(f->fake.last_piece, large);
    vmf_put_buffer(f->file, large, 100000);
    assert_calls(f, "put@0+100004 put@100004+100000 ");
    assert_int_equal(f->fake.pieces, 1);
    assert_int_equal(vmf_file_tell(f->file), 200004);
}

static void put__keeps_order_over_many_sizes(void **state)
{
    Fixture *f = *state;
    g_autoptr(GByteArray) expected = g_byte_array_new();
    uint8_t piece[40000];

    for (unsigned i = 0; i < 300; i++) {
        size_t size = (size_t)i * i * 7919 % sizeof(piece);

        memset(piece, (int)i, size);
        vmf_put_buffer(f->file, piece, size);
        g_byte_array_append(expected, piece, (guint)size);
    }
    assert_true(vmf_file_flush(f->file, NULL));
    assert_int_equal(f->fake.out->len, expected->len);
    assert_memory_equal(f->fake.out->data, expected->data, expected->len);
    assert_int_equal(vmf_file_tell(f->file), expected->len);
}

static void put_counted_string__has_255_bytes_at_most(void **state)
{
    Fixture *f = *state;
    char text[257];

    memset(text, 'a', 256);
    text[255] = '\0';
    vmf_put_counted_string(f->file, text);
    assert_int_equal(vmf_file_tell(f->file), 256);
    text[255] = 'a';
    text[256] = '\0';
    vmf_put_counted_string(f->file, text);
    assert_failed(f->file, VMF_ERROR_INVALID, "255");
    assert_int_equal(vmf_file_tell(f->file), 256);
}

/* --- rule 1: no RAM path is a NULL member --- */

static void save_ram_page__without_a_ram_path_is_refused(void **state)
{
    Fixture *f = *state;
    Fake fake;
    VmfFile *file;

    fake_init(&fake);
    file = vmf_file_new(&fake_stream_only_ops, &fake, VMF_FILE_WRITE, NULL);
    assert_true(vmf_file_has_ram_path(f->file));
    assert_false(vmf_file_has_ram_path(file));
    /* The caller puts the page into the stream. Flushes then flush only the stream. */
    vmf_put_be64(file, 1);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_ROUND));
    assert_string_equal(fake.calls->str, "put@0+8 ");
    assert_false(vmf_save_ram_page(file, &f->block, 0, 4096));
    assert_failed(file, VMF_ERROR_UNSUPPORTED, "put the page into it");
    vmf_file_free(file);
    fake_clear(&fake);
}

/* --- rules 2 and 4: the order in which a transport sees stream, RAM and drains --- */

static void stream_bytes__reach_the_transport_after_the_ram_saved_before_them(void **state)
{
    Fixture *f = *state;
    g_autofree uint8_t *large = g_malloc0(50000);

    vmf_put_be32(f->file, 1);
    assert_true(vmf_save_ram_page(f->file, &f->block, 0, 4096));
    assert_calls(f, "ram@0+4096 "); /* RAM may overtake the stream and flushes nothing */
    vmf_put_be32(f->file, 2);
    vmf_put_buffer(f->file, large, 50000);
    assert_true(vmf_save_ram_page(f->file, &f->block, 8192, 8192));
    vmf_put_byte(f->file, 3);
    assert_true(vmf_file_flush(f->file, NULL));
    assert_calls(f, "ram@0+4096 put@0+50008 ram@8192+8192 put@58200+1 ");
}

static void flush_ram_pages__puts_the_stream_first_and_says_which_end_it_is(void **state)
{
    Fixture *f = *state;

    vmf_put_byte(f->file, 1);
    assert_true(vmf_save_ram_page(f->file, &f->block, 4096, 4096));
    assert_true(vmf_flush_ram_pages(f->file, VMF_FLUSH_ROUND));
    vmf_put_byte(f->file, 2);
    assert_true(vmf_flush_ram_pages(f->file, VMF_FLUSH_FINAL));
    assert_calls(f, "ram@4096+4096 put@0+1 flush:round put@4097+1 flush:final ");
}

static void flush_ram_pages__only_to_start_leaves_the_stream_where_it_is(void **state)
{
    Fixture *f = *state;

    vmf_put_byte(f->file, 1);
    assert_true(vmf_save_ram_page(f->file, &f->block, 4096, 4096));
    assert_true(vmf_flush_ram_pages(f->file, VMF_FLUSH_START));
    assert_true(vmf_flush_ram_pages(f->file, VMF_FLUSH_ROUND));
    assert_calls(f, "ram@4096+4096 flush:start put@0+1 flush:round ");
}

static void tell__counts_ram_as_the_transport_accounts_it(void **state)
{
    Fixture *f = *state;

    vmf_put_be16(f->file, 1);
    assert_true(vmf_save_ram_page(f->file, &f->block, 0, 65536));
    assert_int_equal(vmf_file_tell(f->file), 2 + 4096);
    f->fake.account = 0; /* sent before, for example */
    assert_true(vmf_save_ram_page(f->file, &f->block, 0, 65536));
    assert_int_equal(vmf_file_tell(f->file), 2 + 4096);
}

static void save_ram_page__checks_the_range(void **state)
{
    static const struct {
        uint64_t offset, length;
    } outside[] = {{RAM_SIZE, 1}, {RAM_SIZE - 1, 2}, {1, UINT64_MAX}, {UINT64_MAX, 1}};

    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(outside); i++) {
        void *fresh;
        Fixture *f;

        set_up(&fresh);
        f = fresh;
        assert_true(vmf_save_ram_page(f->file, &f->block, RAM_SIZE - 4096, 4096));
        assert_false(vmf_save_ram_page(f->file, &f->block, outside[i].offset, outside[i].length));
        assert_failed(f->file, VMF_ERROR_INVALID, "\"pc.ram\"");
        assert_calls(f, "ram@1044480+4096 ");
        tear_down(&fresh);
    }
}

/* --- rule 5: errors --- */

static void failed_drain__is_the_files_error(void **state)
{
    Fixture *f = *state;

    f->fake.fails = "flush";
    assert_false(vmf_flush_ram_pages(f->file, VMF_FLUSH_ROUND));
    assert_failed(f->file, VMF_ERROR_DEVICE, "flush failed");
}

/* The maker of a stream may forget to set an error, which must not abort. */
static void no_reason__is_an_error_too(void **state)
{
    static const char *const calls[] = {"put", "ram", "flush"};
    g_autoptr(GError) error = NULL;
    Fixture *f = *state;
    VmfFile *file;

    f->fake.mute = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++) {
        file = vmf_file_new(&fake_writer_ops, &f->fake, VMF_FILE_WRITE, NULL);
        f->fake.closed = false;
        f->fake.fails = calls[i];
        vmf_put_byte(file, 1);
        vmf_save_ram_page(file, &f->block, 0, 4096);
        vmf_flush_ram_pages(file, VMF_FLUSH_ROUND);
        assert_failed(file, VMF_ERROR_FAILED, "gave no reason");
        vmf_file_free(file);
    }
    file = vmf_file_new(&fake_writer_ops, &f->fake, VMF_FILE_WRITE, NULL);
    f->fake.closed = false;
    f->fake.fails = "close";
    assert_false(vmf_file_close(file, &error));
    assert_non_null(strstr(error->message, "gave no reason"));
    f->fake.closed = false;
    f->fake.fails = NULL;
}

static VmfFile *no_way_back(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return NULL;
}

static void no_reason__for_no_return_path(void **state)
{
    VmfFileOps ops = fake_writer_ops;
    g_autoptr(GError) error = NULL;
    Fixture *f = *state;
    VmfFile *file;

    ops.get_return_path = no_way_back;
    file = vmf_file_new(&ops, &f->fake, VMF_FILE_WRITE, NULL);
    assert_null(vmf_file_get_return_path(file, &error));
    assert_non_null(strstr(error->message, "gave no reason"));
    vmf_file_free(file);
    f->fake.closed = false;
}

static void first_error__wins_and_ends_all_traffic(void **state)
{
    Fixture *f = *state;
    g_autoptr(GError) error = NULL;
    uint64_t position;

    vmf_put_be32(f->file, 1);
    f->fake.fails = "ram";
    assert_false(vmf_save_ram_page(f->file, &f->block, 0, 4096));
    position = vmf_file_tell(f->file);
    assert_int_equal(position, 4); /* what failed is not counted */
    vmf_file_fail(f->file, g_error_new(VMF_ERROR, VMF_ERROR_IO, "a later one"));
    vmf_put_be32(f->file, 2);
    vmf_put_buffer(f->file, "x", 1);
    vmf_put_counted_string(f->file, "x");
    assert_false(vmf_save_ram_page(f->file, &f->block, 0, 4096));
    assert_false(vmf_flush_ram_pages(f->file, VMF_FLUSH_FINAL));
    assert_false(vmf_file_flush(f->file, &error));
    assert_int_equal(error->code, VMF_ERROR_DEVICE);
    assert_failed(f->file, VMF_ERROR_DEVICE, "ram failed");
    assert_calls(f, "ram@0+4096 ");
    assert_int_equal(vmf_file_tell(f->file), position);
}

static void failed_put__is_reported_by_check_and_by_close(void **state)
{
    Fake fake;
    VmfFile *file;
    g_autoptr(GError) error = NULL;

    (void)state;
    fake_init(&fake);
    file = vmf_file_new(&fake_writer_ops, &fake, VMF_FILE_WRITE, NULL);
    fake.fails = "put";
    vmf_put_byte(file, 1);
    assert_true(vmf_file_check(file, NULL)); /* still in the buffer */
    assert_false(vmf_file_close(file, &error));
    assert_int_equal(error->code, VMF_ERROR_DEVICE);
    assert_string_equal(fake.calls->str, "put@0+1 close ");
    fake_clear(&fake);
}

static void close__flushes_and_reports_its_own_failure(void **state)
{
    Fake fake;
    VmfFile *file;
    g_autoptr(GError) error = NULL;

    (void)state;
    fake_init(&fake);
    file = vmf_file_new(&fake_writer_ops, &fake, VMF_FILE_WRITE, NULL);
    fake.fails = "close";
    vmf_put_byte(file, 1);
    assert_false(vmf_file_close(file, &error));
    assert_non_null(strstr(error->message, "close failed"));
    assert_string_equal(fake.calls->str, "put@0+1 close ");
    assert_int_equal(fake.out->len, 1);
    fake_clear(&fake);
    assert_true(vmf_file_close(NULL, NULL));
}

static void reading__from_a_writer_is_an_error(void **state)
{
    Fixture *f = *state;

    assert_int_equal(vmf_get_be32(f->file), 0);
    assert_failed(f->file, VMF_ERROR_DIRECTION, "open for writing");
}

/* --- rate limit --- */

static gint64 fake_now;

static gint64 fake_clock(void)
{
    return fake_now;
}

static void save_pages(Fixture *f, unsigned count)
{
    while (count--) {
        assert_true(vmf_save_ram_page(f->file, &f->block, 0, 4096));
    }
}

static void rate_limit__counts_ram_and_asks_for_the_right_pause(void **state)
{
    Fixture *f = *state;

    f->file->clock = fake_clock;
    fake_now = 5000000;
    assert_int_equal(vmf_file_get_rate_limit(f->file), 0);
    save_pages(f, 1000);
    assert_false(vmf_file_rate_exceeded(f->file)); /* no limit */

    vmf_file_set_rate_limit(f->file, 4096 * 1000); /* 100 pages in a slice of 100 ms */
    assert_int_equal(vmf_file_get_rate_limit(f->file), 4096 * 1000);
    save_pages(f, 99);
    assert_false(vmf_file_rate_exceeded(f->file));
    save_pages(f, 1);
    assert_true(vmf_file_rate_exceeded(f->file));
    assert_int_equal(vmf_file_rate_delay(f->file), 100000);
    fake_now += 60000;
    assert_int_equal(vmf_file_rate_delay(f->file), 40000);
    fake_now += 40000;
    assert_false(vmf_file_rate_exceeded(f->file));
    save_pages(f, 99); /* the next slice begins at 0 */
    assert_false(vmf_file_rate_exceeded(f->file));
}

static void rate_limit__saves_no_pause_up_and_makes_up_for_a_large_piece(void **state)
{
    Fixture *f = *state;

    f->file->clock = fake_clock;
    fake_now = 0;
    vmf_file_set_rate_limit(f->file, 4096 * 1000);
    fake_now += 60 * G_USEC_PER_SEC; /* a minute of silence saves nothing up */
    save_pages(f, 100);
    assert_false(vmf_file_rate_exceeded(f->file)); /* the slice that passed pays for these */
    save_pages(f, 250);
    assert_int_equal(vmf_file_rate_delay(f->file), 100000); /* 250 ms, at most 100 ms at a time */
    fake_now += 200000;
    assert_int_equal(vmf_file_rate_delay(f->file), 50000);
    vmf_file_set_rate_limit(f->file, 0);
    assert_false(vmf_file_rate_exceeded(f->file));
}

static void rate_limit__of_one_byte_a_second_does_not_overflow(void **state)
{
    Fixture *f = *state;

    f->file->clock = fake_clock;
    fake_now = 0;
    vmf_file_set_rate_limit(f->file, 1);
    f->fake.account = UINT64_MAX / 2;
    save_pages(f, 1);
    assert_int_equal(vmf_file_rate_delay(f->file), 100000);
    fake_now = G_MAXINT32;
    assert_int_equal(vmf_file_rate_delay(f->file), 100000);
}

/* --- in memory --- */

static void memory__gives_back_what_was_put(void **state)
{
    VmfFile *writer = vmf_file_new_memory_writer();
    g_autofree uint8_t *large = g_malloc(200000);
    g_autofree uint8_t *back = g_malloc(200000);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GBytes) rest = NULL;
    VmfFile *reader;
    char name[256];

    (void)state;
    memset(large, 0x5a, 200000);
    vmf_put_counted_string(writer, "virtio-net");
    vmf_put_buffer(writer, large, 200000);
    vmf_put_be16(writer, 0xbeef);
    bytes = vmf_file_steal_bytes(writer, NULL);
    assert_int_equal(g_bytes_get_size(bytes), 11 + 200000 + 2);
    vmf_put_byte(writer, 1); /* goes on, empty */
    rest = vmf_file_steal_bytes(writer, NULL);
    assert_int_equal(g_bytes_get_size(rest), 1);
    assert_int_equal(vmf_file_tell(writer), 11 + 200000 + 2 + 1);
    assert_true(vmf_file_close(writer, NULL));

    reader = vmf_file_new_memory_reader(bytes);
    assert_true(vmf_get_counted_string(reader, name));
    assert_string_equal(name, "virtio-net");
    assert_int_equal(vmf_get_buffer(reader, back, 200000), 200000);
    assert_memory_equal(back, large, 200000);
    assert_int_equal(vmf_get_be16(reader), 0xbeef);
    assert_true(vmf_file_at_end(reader));
    assert_true(vmf_file_close(reader, NULL));
}

static void steal_bytes__needs_a_memory_writer_that_has_not_failed(void **state)
{
    Fixture *f = *state;
    VmfFile *writer = vmf_file_new_memory_writer();
    g_autoptr(GError) error = NULL;

    assert_null(vmf_file_steal_bytes(f->file, &error));
    assert_int_equal(error->code, VMF_ERROR_INVALID);
    g_clear_error(&error);
    vmf_file_shut_down(writer);
    assert_null(vmf_file_steal_bytes(writer, &error));
    assert_int_equal(error->code, VMF_ERROR_CANCELLED);
    vmf_file_free(writer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new__refuses_half_a_ram_path_and_a_table_for_the_other_direction),
        TEST(new__takes_no_more_of_the_table_than_its_size),
        TEST(ops_are__tells_tables_apart),
        TEST(optional_callbacks__may_all_be_missing),
        TEST(put__is_big_endian_and_gathered),
        TEST(put__passes_large_pieces_by_reference_after_the_buffer),
        TEST(put__keeps_order_over_many_sizes),
        TEST(put_counted_string__has_255_bytes_at_most),
        TEST(save_ram_page__without_a_ram_path_is_refused),
        TEST(stream_bytes__reach_the_transport_after_the_ram_saved_before_them),
        TEST(flush_ram_pages__puts_the_stream_first_and_says_which_end_it_is),
        TEST(flush_ram_pages__only_to_start_leaves_the_stream_where_it_is),
        TEST(tell__counts_ram_as_the_transport_accounts_it),
        TEST(save_ram_page__checks_the_range),
        TEST(failed_drain__is_the_files_error),
        TEST(no_reason__is_an_error_too),
        TEST(no_reason__for_no_return_path),
        TEST(first_error__wins_and_ends_all_traffic),
        TEST(failed_put__is_reported_by_check_and_by_close),
        TEST(close__flushes_and_reports_its_own_failure),
        TEST(reading__from_a_writer_is_an_error),
        TEST(rate_limit__counts_ram_and_asks_for_the_right_pause),
        TEST(rate_limit__saves_no_pause_up_and_makes_up_for_a_large_piece),
        TEST(rate_limit__of_one_byte_a_second_does_not_overflow),
        TEST(memory__gives_back_what_was_put),
        TEST(steal_bytes__needs_a_memory_writer_that_has_not_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
