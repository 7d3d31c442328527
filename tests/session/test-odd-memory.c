/* SPDX-License-Identifier: BSD-2-Clause */
/* test-odd-memory.c -- guest memory of odd kinds: shared ROMs, and pages that a handler fills */

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/pair.h"

#define MIB (1024ul * 1024)
#define RAM (4 * MIB)
#define PAGE 4096ul

static Pair pair;

static const char *const options[] = {",channels=2,zero-detect=off",
                                      ",channels=2,zero-detect=off,registration=pin-all"};

static unsigned variants(void)
{
    return pair_is_rdma() ? G_N_ELEMENTS(options) : 1;
}

static void migrate(void)
{
    VmfFile *file;

    pair_connect(&pair);
    file = vmf_session_get_file(pair.source);
    pair_save_all(&pair, MIB);
    assert_true(vmf_flush_ram_pages(file, VMF_FLUSH_FINAL));
    pair_complete(&pair);
}

/* A shared mapping of a file that is open for reading alone: nothing can make it writable. */
static void a_shared_rom_is_sent(void **state)
{
    (void)state;
    for (unsigned i = 0; i < variants(); i++) {
        const int fd = memfd_create("rom", MFD_CLOEXEC);
        g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
        int reading;

        pair_init(&pair, RAM, true, options[i]);
        pair_fill(pair.source_ram, RAM, 3);
        assert_int_equal(write(fd, pair.source_ram, RAM), RAM);
        reading = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(reading >= 0);
        assert_true(mmap(pair.source_ram, RAM, PROT_READ, MAP_SHARED | MAP_FIXED, reading, 0) ==
                    pair.source_ram);
        close(reading);
        close(fd);
        migrate();
        pair_clear(&pair);
    }
}

/* --- userfaultfd --- */

typedef struct Filler {
    int fd;
    int stop[2];
    const uint8_t *content;
    unsigned filled;
} Filler;

static void fill_page(Filler *filler, uint64_t address)
{
    const uint64_t page = address & ~(PAGE - 1);
    struct uffdio_copy copy = {.dst = page, .len = PAGE};

    copy.src = (uintptr_t)filler->content + (page - (uintptr_t)pair.source_ram);
    if (ioctl(filler->fd, UFFDIO_COPY, &copy) == 0) {
        filler->filled++;
    }
}

/* The handler, which gives each page when it is first used. */
static void *filler_main(void *opaque)
{
    Filler *filler = opaque;
    struct pollfd fds[] = {{.fd = filler->fd, .events = POLLIN},
                           {.fd = filler->stop[0], .events = POLLIN}};

    while (poll(fds, 2, -1) > 0 && !fds[1].revents) {
        struct uffd_msg message;

        if (read(filler->fd, &message, sizeof(message)) == sizeof(message) &&
            message.event == UFFD_EVENT_PAGEFAULT) {
            fill_page(filler, message.arg.pagefault.address);
        }
    }
    return NULL;
}

static void memory_that_is_filled_when_it_is_asked_for_is_sent(void **state)
{
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};

    (void)state;
    for (unsigned i = 0; pair_is_rdma() && i < variants(); i++) {
        struct uffdio_api api = {.api = UFFD_API}; /* the kernel writes all its features into it */
        Filler filler = {.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)};
        g_autofree uint8_t *content = g_malloc(RAM);
        GThread *thread;

        assert_true(filler.fd >= 0);
        assert_int_equal(pipe(filler.stop), 0);
        pair_init(&pair, RAM, false, options[i]);
        pair_fill(content, RAM, 4);
        filler.content = content;
        range.range.start = (uintptr_t)pair.source_ram;
        range.range.len = RAM;
        assert_int_equal(ioctl(filler.fd, UFFDIO_API, &api), 0);
        assert_int_equal(ioctl(filler.fd, UFFDIO_REGISTER, &range), 0);
        thread = g_thread_new("filler", filler_main, &filler);
        migrate();
        assert_memory_equal(pair.destination_ram, content, RAM);
        close(filler.stop[1]);
        g_thread_join(thread);
        assert_int_equal(filler.filled, RAM / PAGE);
        close(filler.stop[0]);
        close(filler.fd);
        pair_clear(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_rom_is_sent),
        cmocka_unit_test(memory_that_is_filled_when_it_is_asked_for_is_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
