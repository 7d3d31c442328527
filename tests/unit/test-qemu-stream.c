/* SPDX-License-Identifier: BSD-2-Clause */
/* test-qemu-stream.c -- QEMU's stream is followed up to the end of RAM, however it is cut */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <vmferry/error.h>

#include <vmferry/qemu-stream.h>

#define HEADER "QEVM\0\0\0\3"
#define CONFIGURATION "\7\0\0\0\2pc"
#define PAGE_BITS "\5\36configuration/target-page-bits\0\0\0\1\0\0\0\14"
#define LARGE_PAGES "\5\36configuration/target-page-bits\0\0\0\1\0\0\0\24"
#define COMMAND "\10\0\1\0\0"
#define RAM_START "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
#define RAM_PART "\2\0\0\0\2"
#define RAM_END "\3\0\0\0\2"
/* Two blocks: pc.ram with 8192 bytes and rom with 4096. */
#define BLOCKS                                                                                     \
    "\0\0\0\0\0\0\60\4"                                                                            \
    "\6pc.ram\0\0\0\0\0\0\40\0"                                                                    \
    "\3rom\0\0\0\0\0\0\20\0"
#define HOOK "\0\0\0\0\0\0\0\200"
#define EOS "\0\0\0\0\0\0\0\20"
#define FOOTER "\176\0\0\0\2"
#define ZERO_PAGE "\0\0\0\0\0\0\20\2\6pc.ram\0" /* the second page of pc.ram */
#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

typedef struct Seen {
    GString *kinds; /* a letter for each item */
    uint64_t bytes, data;
    VmfQemuItem last_page;
} Seen;

static bool see(void *opaque, const VmfQemuItem *item, GError **error)
{
    static const char letters[] = {
        [VMF_QEMU_ITEM_HEADER] = 'h',  [VMF_QEMU_ITEM_CONFIGURATION] = 'c',
        [VMF_QEMU_ITEM_COMMAND] = 'm', [VMF_QEMU_ITEM_SECTION] = 's',
        [VMF_QEMU_ITEM_BLOCKS] = 'b',  [VMF_QEMU_ITEM_HOOK] = '!',
        [VMF_QEMU_ITEM_PAGE] = 'p',    [VMF_QEMU_ITEM_DATA] = 'd',
        [VMF_QEMU_ITEM_ZERO] = 'z',    [VMF_QEMU_ITEM_EOS] = 'e',
        [VMF_QEMU_ITEM_FOOTER] = 'f',  [VMF_QEMU_ITEM_OPAQUE] = 'o',
    };
    Seen *seen = opaque;
    char letter = letters[item->kind];

    (void)error;
    seen->bytes += item->size;
    seen->data += item->kind == VMF_QEMU_ITEM_DATA ? item->size : 0;
    if (item->kind == VMF_QEMU_ITEM_PAGE || item->kind == VMF_QEMU_ITEM_ZERO) {
        seen->last_page = *item;
    }
    /* However these are cut, they are one. */
    if (!((letter == 'd' || letter == 'o') &&
          g_str_has_suffix(seen->kinds->str, letter == 'd' ? "d" : "o"))) {
        g_string_append_c(seen->kinds, letter);
    }
    return true;
}

static void check_kinds(const uint8_t *stream, size_t size, const char *kinds)
{
    for (size_t piece = 1; piece <= size; piece += piece < 40 ? 1 : size) {
        Seen seen = {.kinds = g_string_new(NULL)};
        VmfQemuStream *q = vmf_qemu_stream_new(see, &seen);
        g_autoptr(GError) error = NULL;

        for (size_t at = 0; at < size; at += piece) {
            size_t part = MIN(piece, size - at);

            if (vmf_qemu_stream_scan(q, stream + at, part, false, &error) != (ssize_t)part) {
                fail_msg("%s", error->message);
            }
        }
        assert_string_equal(seen.kinds->str, kinds);
        assert_int_equal(seen.bytes, size);
        assert_int_equal(vmf_qemu_stream_position(q), size);
        vmf_qemu_stream_free(q);
        g_string_free(seen.kinds, TRUE);
    }
}

static void stream__of_a_migration_by_rdma_is_followed(void **state)
{
    (void)state;
    check_kinds(BYTES(HEADER CONFIGURATION COMMAND RAM_START BLOCKS HOOK EOS FOOTER RAM_PART HOOK
                          EOS FOOTER RAM_END HOOK EOS FOOTER "\4\0\0\0\3 and devices \0\20\176"),
                "hcmsbbb!efs!efs!efo");
}

static void stream__without_footers_and_configuration_is_followed(void **state)
{
    (void)state;
    check_kinds(BYTES(HEADER RAM_START BLOCKS EOS RAM_PART EOS RAM_END EOS "\4 devices"),
                "hsbbbesese"
                "o");
}

static void stream__with_pages_is_followed(void **state)
{
    g_autoptr(GByteArray) stream = g_byte_array_new();
    uint8_t page[4096];

    (void)state;
    memset(page, 0x80, sizeof(page));
    g_byte_array_append(
        stream, BYTES(HEADER CONFIGURATION PAGE_BITS RAM_START BLOCKS EOS FOOTER RAM_END ZERO_PAGE
                      "\0\0\0\0\0\0\0\50"));
    g_byte_array_append(stream, page, sizeof(page));
    g_byte_array_append(stream, BYTES("\0\0\0\0\0\0\0\10\3rom"));
    g_byte_array_append(stream, page, sizeof(page));
    g_byte_array_append(stream, BYTES(EOS FOOTER "\0"));
    check_kinds(stream->data, stream->len, "hcccsbbbefszpdpdefo");
}

static void page__is_placed_in_its_block(void **state)
{
    Seen seen = {.kinds = g_string_new(NULL)};
    VmfQemuStream *q = vmf_qemu_stream_new(see, &seen);

    (void)state;
    assert_true(vmf_qemu_stream_scan(
                    q,
                    BYTES(HEADER RAM_START BLOCKS EOS RAM_END ZERO_PAGE "\0\0\0\0\0\0\0\10\3rom"),
                    false, NULL) > 0);
    assert_int_equal(seen.last_page.kind, VMF_QEMU_ITEM_PAGE);
    assert_int_equal(seen.last_page.block, 1);
    assert_int_equal(seen.last_page.offset, 0);
    assert_int_equal(seen.last_page.section, VMF_QEMU_SECTION_END);
    assert_string_equal(vmf_qemu_stream_awaits(q), "a page");
    assert_int_equal(vmf_qemu_stream_block_count(q), 2);
    assert_string_equal(vmf_qemu_stream_block(q, 1)->name, "rom");
    vmf_qemu_stream_free(q);
    g_string_free(seen.kinds, TRUE);
}

static void scan__stops_after_a_hook(void **state)
{
    static const char start[] = HEADER RAM_START BLOCKS HOOK;
    Seen seen = {.kinds = g_string_new(NULL)};
    VmfQemuStream *q = vmf_qemu_stream_new(see, &seen);

    (void)state;
    assert_int_equal(vmf_qemu_stream_scan(q, BYTES(HEADER RAM_START BLOCKS HOOK EOS), true, NULL),
                     sizeof(start) - 1);
    assert_true(vmf_qemu_stream_at_hook(q));
    assert_true(vmf_qemu_stream_blocks_complete(q));
    assert_int_equal(vmf_qemu_stream_scan(q, BYTES(EOS), true, NULL), 8);
    assert_false(vmf_qemu_stream_at_hook(q));
    assert_false(vmf_qemu_stream_ram_ended(q));
    vmf_qemu_stream_free(q);
    g_string_free(seen.kinds, TRUE);
}

static void refused(const uint8_t *stream, size_t size, int code, const char *why)
{
    Seen seen = {.kinds = g_string_new(NULL)};
    VmfQemuStream *q = vmf_qemu_stream_new(see, &seen);
    g_autoptr(GError) error = NULL;

    assert_int_equal(vmf_qemu_stream_scan(q, stream, size, false, &error), -1);
    assert_int_equal(error->code, code);
    if (!strstr(error->message, why) || !strstr(error->message, "offset")) {
        fail_msg("\"%s\" does not say \"%s\"", error->message, why);
    }
    vmf_qemu_stream_free(q);
    g_string_free(seen.kinds, TRUE);
}

static void stream__that_is_damaged_is_refused(void **state)
{
    (void)state;
    refused(BYTES("ELF!\0\0\0\3"), VMF_ERROR_PROTOCOL, "magic 0x454c4621");
    refused(BYTES("QEVM\0\0\0\4"), VMF_ERROR_UNSUPPORTED, "version 4");
    refused(BYTES(HEADER "\11"), VMF_ERROR_PROTOCOL, "0x09");
    refused(BYTES(HEADER "\7\0\0\1\0"), VMF_ERROR_PROTOCOL, "256 bytes");
    refused(BYTES(HEADER CONFIGURATION "\5\3new\0\0\0\1"), VMF_ERROR_UNSUPPORTED, "too new");
    refused(BYTES(HEADER "\1\0\0\0\2\5block\0\0\0\0\0\0\0\1"), VMF_ERROR_UNSUPPORTED,
            "\"block\" comes before the end of RAM");
    refused(BYTES(HEADER "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\5"), VMF_ERROR_UNSUPPORTED, "version 5");
    refused(BYTES(HEADER RAM_PART), VMF_ERROR_PROTOCOL, "section 2, which has not begun");
    refused(BYTES(HEADER RAM_START BLOCKS BLOCKS), VMF_ERROR_PROTOCOL, "second list");
    refused(BYTES(HEADER RAM_START "\0\0\0\0\0\0\20\4\3ram\0\0\0\0\0\0\40\0"), VMF_ERROR_PROTOCOL,
            "0x2000 bytes");
    refused(BYTES(HEADER RAM_START BLOCKS EOS "\176\0\0\0\7"), VMF_ERROR_PROTOCOL,
            "footer of section 7");
    refused(BYTES(HEADER RAM_START BLOCKS "\0\0\0\0\0\0\0\100"), VMF_ERROR_UNSUPPORTED,
            "flags 0x40");
    refused(BYTES(HEADER RAM_START BLOCKS "\0\0\0\0\0\0\0\50"), VMF_ERROR_PROTOCOL, "no block");
    refused(BYTES(HEADER RAM_START BLOCKS "\0\0\0\0\0\0\0\10\3abc"), VMF_ERROR_PROTOCOL,
            "\"abc\", which is not listed");
    refused(BYTES(HEADER RAM_START BLOCKS "\0\0\0\0\0\0\40\10\6pc.ram"), VMF_ERROR_PROTOCOL,
            "a page at 0x2000");
    refused(BYTES(HEADER RAM_START BLOCKS "\0\0\0\0\0\0\0\2\3rom\1"), VMF_ERROR_UNSUPPORTED,
            "filled with 0x01");
}

static void page__that_is_larger_than_what_is_left_of_its_block_is_refused(void **state)
{
    (void)state;
    /* Pages of 1 MiB, and blocks of 8 KiB and 4 KiB. */
    refused(BYTES(HEADER CONFIGURATION LARGE_PAGES RAM_START BLOCKS EOS FOOTER RAM_END
                  "\0\0\0\0\0\0\0\2\6pc.ram\0"),
            VMF_ERROR_PROTOCOL, "1048576 bytes beyond the end of RAM block \"pc.ram\"");
    refused(BYTES(HEADER CONFIGURATION LARGE_PAGES RAM_START BLOCKS EOS FOOTER RAM_END
                  "\0\0\0\0\0\0\0\10\3rom"),
            VMF_ERROR_PROTOCOL, "1048576 bytes beyond the end of RAM block \"rom\"");
}

static void file__of_mapped_ram_is_called_by_its_name(void **state)
{
    (void)state;
    refused(BYTES(HEADER CONFIGURATION "\5\32configuration/capabilities\0\0\0\1\0\0\0\1"
                                       "\12mapped-ram"),
            VMF_ERROR_UNSUPPORTED, "capability \"mapped-ram\" is in use");
    /* Without the capabilities: a table follows the first block, or the only one. */
    refused(BYTES(HEADER RAM_START "\0\0\0\0\0\0\60\4\6pc.ram\0\0\0\0\0\0\40\0"
                                   "\0\0\0\1\0\0\0\0\0\0\20\0"),
            VMF_ERROR_UNSUPPORTED, "mapped-ram");
    refused(BYTES(HEADER RAM_START "\0\0\0\0\0\0\20\4\3rom\0\0\0\0\0\0\20\0"
                                   "\0\0\0\1\0\0\0\0\0\0\20\0"),
            VMF_ERROR_UNSUPPORTED, "mapped-ram");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream__of_a_migration_by_rdma_is_followed),
        cmocka_unit_test(stream__without_footers_and_configuration_is_followed),
        cmocka_unit_test(stream__with_pages_is_followed),
        cmocka_unit_test(page__is_placed_in_its_block),
        cmocka_unit_test(scan__stops_after_a_hook),
        cmocka_unit_test(stream__that_is_damaged_is_refused),
        cmocka_unit_test(page__that_is_larger_than_what_is_left_of_its_block_is_refused),
        cmocka_unit_test(file__of_mapped_ram_is_called_by_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
