/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault-sweep.c -- runs a small migration, source and destination in one
 * child process, with the Nth fault point failing, for N = 1, 2, ... until a
 * run passes without any having fired. Every run must end in bounded time,
 * without a crash, with an error on the sides that did not finish, and with as
 * many open descriptors as it began with.
 */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmferry/vmferry.h>

#define RAM (3u << 20)
#define SECONDS 20 /* for one run: alarm(2) ends it */

/* The child's verdict, as its exit status. */
enum { CLEAN = 0, FAILED_WELL = 10, BAD = 11 };

static unsigned open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (directory && readdir(directory)) {
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    return count;
}

typedef struct Side {
    VmfListener *listener;
    VmfRamBlocks *blocks;
    VmfSession *session;
    GCancellable *cancel;
    GError *error;
    bool owns;
} Side;

/* --- a device --- */

static bool save(VmfDeviceJob *job, void *opaque, GError **error)
{
    static const uint8_t state[300 * 1024] = {1};

    (void)opaque;
    return vmf_device_put(job, state, sizeof(state), NULL, NULL, error);
}

static bool load(VmfDeviceJob *job, void *opaque, GError **error)
{
    const void *data;
    size_t size;

    (void)opaque;
    do {
        if (!vmf_device_get(job, &data, &size, error)) {
            return false;
        }
    } while (data);
    return true;
}

static bool add_device(VmfSession *session, GError **error)
{
    static const VmfDeviceOps ops = {.size = sizeof(ops), .save = save, .load = load};

    return vmf_devices_add(vmf_session_get_devices(session), "device", 0, &ops, NULL, error);
}

/* --- the two sides --- */

static void *destination(void *opaque)
{
    Side *side = opaque;

    side->session = vmf_session_accept(side->listener, side->blocks, side->cancel, &side->error);
    if (!side->session) {
        return NULL;
    }
    side->owns = add_device(side->session, &side->error) &&
                 vmf_devices_expect(vmf_session_get_devices(side->session), &side->error) &&
                 vmf_get_be64(vmf_session_get_file(side->session)) == 1 &&
                 vmf_devices_load(vmf_session_get_devices(side->session), &side->error) &&
                 vmf_session_complete(side->session, &side->error);
    if (!side->owns && !side->error) {
        vmf_session_check(side->session, &side->error);
    }
    vmf_session_free(side->session);
    return NULL;
}

static bool source(Side *side, const VmfUri *uri, const VmfRamBlock *block)
{
    VmfFile *file;
    bool gave;

    side->session = vmf_session_connect(uri, side->blocks, side->cancel, &side->error);
    if (!side->session) {
        return false;
    }
    file = vmf_session_get_file(side->session);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t at = 0; at < RAM; at += 4096) {
            vmf_save_ram_page(file, block, at, 4096);
        }
        vmf_flush_ram_pages(file, VMF_FLUSH_ROUND);
    }
    vmf_put_be64(file, 1);
    gave = vmf_file_flush(file, &side->error) && add_device(side->session, &side->error) &&
           vmf_devices_start(vmf_session_get_devices(side->session), &side->error) &&
           vmf_devices_finish(vmf_session_get_devices(side->session), &side->error) &&
           vmf_session_complete(side->session, &side->error);
    vmf_session_free(side->session);
    return gave;
}

static uint8_t *memory(void)
{
    return mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
                0);
}

/* One migration; the child's exit status. */
static int migrate(const char *text)
{
    Side to = {.blocks = vmf_ram_blocks_new(), .cancel = g_cancellable_new()};
    Side from = {.blocks = vmf_ram_blocks_new(), .cancel = g_cancellable_new()};
    uint8_t *here = memory(), *there = memory();
    const VmfRamBlock *block = vmf_ram_blocks_add(from.blocks, "ram", here, RAM, 4096, NULL);
    g_autoptr(VmfUri) listen_uri = NULL;
    g_autoptr(VmfUri) uri = NULL;
    g_autofree char *address = NULL;
    g_autoptr(GError) error = NULL;
    GThread *thread;
    bool gave, one_owner;

    memset(here, 7, RAM / 2);
    vmf_ram_blocks_add(to.blocks, "ram", there, RAM, 4096, NULL);
    vmf_ram_blocks_set_discardable(to.blocks);
    listen_uri = vmf_uri_parse(text, &error);
    to.listener = listen_uri ? vmf_listener_new(listen_uri, &error) : NULL;
    if (!to.listener) {
        fprintf(stderr, "no listener: %s\n", error ? error->message : "-");
        return error ? FAILED_WELL : BAD;
    }
    address = g_strconcat(vmf_listener_address(to.listener),
                          ",channels=2,timeout=3s,connect-timeout=2s", NULL);
    uri = vmf_uri_parse(address, &error);
    thread = g_thread_new("destination", destination, &to);
    gave = source(&from, uri, block);
    if (!gave) {
        g_usleep(50000);
        g_cancellable_cancel(to.cancel);
    }
    g_thread_join(thread);
    vmf_listener_free(to.listener);
    /* Never two owners; and who does not own it knows why. */
    one_owner = gave
                    ? to.owns
                    : !to.owns || g_error_matches(from.error, VMF_ERROR, VMF_ERROR_UNKNOWN_OUTCOME);
    if (!one_owner || (!gave && !from.error) || (!to.owns && !to.error) ||
        (to.owns && memcmp(here, there, RAM))) {
        fprintf(stderr, "source: %s (%s); destination: %s (%s)\n", gave ? "gave" : "kept",
                from.error ? from.error->message : "-", to.owns ? "owns" : "does not own",
                to.error ? to.error->message : "-");
        return BAD;
    }
    if (from.error || to.error) {
        fprintf(stderr, "source: %s; destination: %s\n", from.error ? from.error->message : "-",
                to.error ? to.error->message : "-");
    }
    g_clear_error(&from.error);
    g_clear_error(&to.error);
    vmf_ram_blocks_unref(from.blocks);
    vmf_ram_blocks_unref(to.blocks);
    g_object_unref(from.cancel);
    g_object_unref(to.cancel);
    munmap(here, RAM);
    munmap(there, RAM);
    return gave ? CLEAN : FAILED_WELL;
}

static int child(const char *text, unsigned n)
{
    g_autofree char *number = g_strdup_printf("%u", n);
    unsigned before;
    int status;

    /* Once without a fault, so that libraries have opened what they keep. */
    if (migrate(text) != CLEAN) {
        fputs("that was without a fault\n", stderr);
        return BAD;
    }
    before = open_descriptors();
    g_setenv("VMFERRY_FAULT_AT", number, TRUE);
    g_setenv("VMFERRY_FAULT_LOG", "1", TRUE);
    alarm(SECONDS);
    status = migrate(text);
    if (open_descriptors() > before) {
        fprintf(stderr, "%u descriptors leaked\n", open_descriptors() - before);
        return BAD;
    }
    return status;
}

/* Whether the fault of run n fired, by what the child said; *ok whether all went well. */
static bool run(const char *text, unsigned n, bool *ok)
{
    int pipe_fds[2], status;
    g_autoptr(GString) said = g_string_new(NULL);
    char bytes[512];
    ssize_t got;
    pid_t pid;

    if (pipe(pipe_fds) < 0 || (pid = fork()) < 0) {
        perror("fault-sweep");
        exit(1);
    }
    if (pid == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        _exit(child(text, n));
    }
    close(pipe_fds[1]);
    while ((got = read(pipe_fds[0], bytes, sizeof(bytes))) > 0) {
        g_string_append_len(said, bytes, got);
    }
    close(pipe_fds[0]);
    waitpid(pid, &status, 0);
    *ok = WIFEXITED(status) && (WEXITSTATUS(status) == CLEAN || WEXITSTATUS(status) == FAILED_WELL);
    if (!*ok) {
        printf("N = %u: %s %d: %s\n", n, WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), said->str);
    }
    return strstr(said->str, "fault injected") != NULL;
}

int main(int argc, char **argv)
{
    const char *base = g_getenv("VMFERRY_TEST_URI");
    g_autofree char *text =
        base ? g_strdup(base) : g_strdup_printf("unix:/tmp/vmferry-fault-%d", (int)getpid());
    unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 1, step = 1, fired = 0, bad = 0;

    /* Past the set-up the points repeat with every message: every few are enough. */
    for (;; n += step) {
        bool ok;

        if (!run(text, n, &ok)) {
            break;
        }
        fired++;
        bad += !ok;
        step = n < 100 ? 1 : n / 8;
        if (fired % 20 == 0) {
            printf("%u ...\n", n);
            fflush(stdout);
        }
    }
    printf("%u faults injected, the last points near %u; %u runs went wrong\n", fired, n, bad);
    return bad || !fired ? 1 : 0;
}
