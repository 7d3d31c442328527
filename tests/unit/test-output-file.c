/* SPDX-License-Identifier: BSD-2-Clause */
/* test-output-file.c -- a file gets its name when it is whole; an older file is not lost before */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <vmferry/error.h>

#include "output-file.h"

static int enter_folder(void **state)
{
    *state = g_dir_make_tmp("vmferry-output-XXXXXX", NULL);
    return *state ? g_chdir(*state) : -1;
}

static int leave_folder(void **state)
{
    g_autofree char *remove = g_strdup_printf("rm -rf '%s'", (char *)*state);

    g_free(*state);
    return g_chdir("/") || system(remove);
}

static void write_to(const char *name, const char *text)
{
    assert_true(g_file_set_contents(name, text, -1, NULL));
}

static void assert_content(const char *name, const char *text)
{
    g_autofree char *content = NULL;

    assert_true(g_file_get_contents(name, &content, NULL, NULL));
    assert_string_equal(content, text);
}

static unsigned count_files(void)
{
    g_autoptr(GDir) folder = g_dir_open(".", 0, NULL);
    unsigned count = 0;

    while (g_dir_read_name(folder)) {
        count++;
    }
    return count;
}

/* Makes a file with the content "new". */
static OutputFile *begin(const char *name)
{
    g_autoptr(GError) error = NULL;
    OutputFile *file = output_file_new(name, 0600, &error);

    if (!file) {
        fail_msg("%s", error->message);
    }
    assert_int_equal(write(output_file_fd(file), "new", 3), 3);
    return file;
}

static void assert_refused(const char *name, const char *words)
{
    const unsigned files = count_files();
    g_autoptr(GError) error = NULL;

    assert_null(output_file_new(name, 0600, &error));
    if (!strstr(error->message, words)) {
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
    }
    assert_int_equal(count_files(), files);
}

static void name__of_no_regular_file_is_refused(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(symlink("fifo", "link-to-fifo"), 0);
    assert_int_equal(symlink("circle", "circle"), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    write_to("file", "text");
    assert_refused("folder", "folder is a folder");
    assert_refused("fifo", "fifo is a FIFO");
    assert_refused("link-to-fifo", "fifo is a FIFO");
    assert_refused("/dev/null", "/dev/null is a device");
    assert_refused("socket", "socket is a socket");
    assert_refused("circle", "circle");
    assert_refused("missing/file", "in the folder missing: No such file");
    assert_refused("file/file", "Not a directory");
    assert_refused("", "not the name of a file");
    assert_refused("folder/", "not the name of a file");
}

static void file__has_no_name_before_it_is_published(void **state)
{
    OutputFile *file = begin("name");

    (void)state;
    assert_false(g_file_test("name", G_FILE_TEST_EXISTS));
    output_file_free(file);
    assert_int_equal(count_files(), 0);
}

static void publish__gives_the_name_and_the_mode(void **state)
{
    OutputFile *file = begin("name");
    struct stat info;

    (void)state;
    assert_true(output_file_publish(file, NULL));
    assert_null(output_file_older(file));
    output_file_settle(file);
    output_file_free(file);
    assert_content("name", "new");
    assert_int_equal(stat("name", &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(count_files(), 1);
}

static void older_file__is_there_until_the_new_one_is_settled(void **state)
{
    OutputFile *file;

    (void)state;
    write_to("name", "old");
    file = begin("name");
    assert_content("name", "old");
    assert_true(output_file_publish(file, NULL));
    assert_content("name", "new");
    assert_content(output_file_older(file), "old");
    output_file_settle(file);
    assert_null(output_file_older(file));
    output_file_free(file);
    assert_content("name", "new");
    assert_int_equal(count_files(), 1);
}

static void older_file__is_not_removed_unless_it_was_said(void **state)
{
    OutputFile *file;

    (void)state;
    write_to("name", "old");
    file = begin("name");
    assert_true(output_file_publish(file, NULL));
    output_file_free(file);
    assert_content("name", "new");
    assert_int_equal(count_files(), 2);
}

static void take_back__gives_the_name_to_the_older_file_again(void **state)
{
    OutputFile *file;

    (void)state;
    write_to("name", "old");
    file = begin("name");
    assert_true(output_file_publish(file, NULL));
    assert_true(output_file_take_back(file, NULL));
    output_file_free(file);
    assert_content("name", "old");
    assert_int_equal(count_files(), 1);
}

static void take_back__leaves_nothing_where_nothing_was(void **state)
{
    OutputFile *file = begin("name");

    (void)state;
    assert_true(output_file_publish(file, NULL));
    assert_true(output_file_take_back(file, NULL));
    output_file_free(file);
    assert_int_equal(count_files(), 0);
}

static void take_back__leaves_what_another_program_put_there(void **state)
{
    g_autoptr(GError) error = NULL;
    OutputFile *file = begin("name");

    (void)state;
    assert_true(output_file_publish(file, NULL));
    write_to("name", "another");
    assert_false(output_file_take_back(file, &error));
    output_file_free(file);
    assert_content("name", "another");
}

static void publish__does_not_replace_a_fifo_that_came_meanwhile(void **state)
{
    g_autoptr(GError) error = NULL;
    OutputFile *file = begin("name");

    (void)state;
    assert_int_equal(mkfifo("name", 0600), 0);
    assert_false(output_file_publish(file, &error));
    assert_non_null(strstr(error->message, "name is a FIFO"));
    output_file_free(file);
    assert_int_equal(count_files(), 1);
}

static void links__are_followed(void **state)
{
    OutputFile *file;

    (void)state;
    assert_int_equal(mkdir("store", 0700), 0);
    write_to("store/file", "old");
    assert_int_equal(symlink("file", "store/link"), 0);
    assert_int_equal(symlink("store/link", "link"), 0);
    assert_int_equal(symlink("store/none-yet", "dangling"), 0);
    file = begin("link");
    assert_true(output_file_publish(file, NULL));
    output_file_settle(file);
    output_file_free(file);
    assert_content("store/file", "new");
    assert_true(g_file_test("link", G_FILE_TEST_IS_SYMLINK));
    assert_true(g_file_test("store/link", G_FILE_TEST_IS_SYMLINK));
    file = begin("dangling");
    assert_true(output_file_publish(file, NULL));
    output_file_free(file);
    assert_content("store/none-yet", "new");
    assert_true(g_file_test("dangling", G_FILE_TEST_IS_SYMLINK));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)
    const struct CMUnitTest tests[] = {
        TEST(name__of_no_regular_file_is_refused),
        TEST(file__has_no_name_before_it_is_published),
        TEST(publish__gives_the_name_and_the_mode),
        TEST(older_file__is_there_until_the_new_one_is_settled),
        TEST(older_file__is_not_removed_unless_it_was_said),
        TEST(take_back__gives_the_name_to_the_older_file_again),
        TEST(take_back__leaves_nothing_where_nothing_was),
        TEST(take_back__leaves_what_another_program_put_there),
        TEST(publish__does_not_replace_a_fifo_that_came_meanwhile),
        TEST(links__are_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
