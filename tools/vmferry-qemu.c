/* SPDX-License-Identifier: BSD-2-Clause */
/* vmferry-qemu.c -- starts an unpatched QEMU whose rdma: migration goes over vmferry */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <paths.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "elf-program.h"

#define LIBRARY "libvmferry-qemu.so"
#define ENGINE "libvmferry-qemu-engine.so"
#define PATH_VARIABLE "VMFERRY_QEMU_LIBRARY"
/* Called by a name that ends so, it starts the program whose name is without that. */
#define ENDING "-vmferry"
/* In a build folder: the library beside the folder of this program, and the plugin. */
#define BUILT_LIBRARY_FOLDER "../rdma/preload"
#define BUILT_PLUGIN_FOLDER "../rdma"

/* As env(1) and shells have it. */
enum {
    EXIT_USAGE = 2,
    EXIT_UNFIT = 126,
    EXIT_NOT_FOUND = 127,
};

static void __attribute__((format(printf, 2, 3), noreturn)) die(int status, const char *format, ...)
{
    va_list arguments;

    fputs("vmferry: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(status);
}

/* Whether the text was short enough. */
static bool __attribute__((format(printf, 2, 3))) join(char *path, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(path, PATH_MAX, format, arguments);
    va_end(arguments);
    return length >= 0 && length < PATH_MAX;
}

/* --- this program --- */

/* Its folder is empty if /proc is not there: then only what was installed is found. */
static char own_folder[PATH_MAX];
static struct stat own_status;

static void find_self(void)
{
    ssize_t length = readlink("/proc/self/exe", own_folder, sizeof(own_folder) - 1);
    char *slash;

    own_folder[length > 0 ? length : 0] = '\0';
    if (stat("/proc/self/exe", &own_status) < 0) {
        own_status = (struct stat){0};
    }
    slash = strrchr(own_folder, '/');
    if (slash) {
        *slash = '\0';
    }
}

static bool is_self(const char *path)
{
    struct stat status;

    return own_status.st_ino && !stat(path, &status) && status.st_ino == own_status.st_ino &&
           status.st_dev == own_status.st_dev;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* --- the program that is meant --- */

/* Goes on behind a program that is not executable, like execvp(). */
static bool find_in(const char *folders, const char *name, char *path, bool *found_other)
{
    struct stat status;

    while (*folders) {
        const size_t length = strcspn(folders, ":");
        char candidate[PATH_MAX];

        if (join(candidate, "%.*s%s%s", (int)length, folders, length ? "/" : "./", name) &&
            !stat(candidate, &status) && S_ISREG(status.st_mode) && !is_self(candidate)) {
            if (!access(candidate, X_OK)) {
                return join(path, "%s", candidate);
            }
            *found_other = true;
        }
        folders += length + (folders[length] == ':');
    }
    return false;
}

static void find_program(const char *name, bool by_link, char *path)
{
    const char *folders = getenv("PATH");
    bool found_other = false;

    if (strchr(name, '/')) {
        if (!join(path, "%s", name)) {
            die(EXIT_NOT_FOUND, "the path of the program is too long");
        }
        if (is_self(path)) {
            die(EXIT_UNFIT, "%s is vmferry-qemu itself: name the QEMU that it is to start", name);
        }
        return;
    }
    if (find_in(folders ? folders : _PATH_DEFPATH, name, path, &found_other) ||
        (by_link && find_in("/usr/bin:/usr/libexec", name, path, &found_other))) {
        return;
    }
    if (found_other) {
        die(EXIT_UNFIT, "%s may not be executed", name);
    }
    die(EXIT_NOT_FOUND, "cannot find %s in %s%s", name, folders ? folders : _PATH_DEFPATH,
        by_link ? ", /usr/bin or /usr/libexec" : "");
}

/* --- whether it can be done --- */

/* With more rights than its caller a program gets no library of its caller's: see ld.so(8). */
static void must_keep_library(const char *path, int fd, const struct stat *status)
{
    const char *why = NULL;
    struct statvfs file_system;

    if (getuid() != geteuid() || getgid() != getegid()) {
        die(EXIT_UNFIT, "this process has an effective user or group that is not its real one, so "
                        "that no library can be preloaded");
    }
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
        (!fstatvfs(fd, &file_system) && file_system.f_flag & ST_NOSUID)) {
        return;
    }
    if (status->st_mode & S_ISUID && status->st_uid != getuid()) {
        why = "set-user-id";
    } else if (status->st_mode & S_ISGID && status->st_mode & S_IXGRP &&
               status->st_gid != getgid()) {
        why = "set-group-id";
    } else if (getuid() && fgetxattr(fd, "security.capability", NULL, 0) >= 0) {
        why = "file capabilities";
    }
    if (why) {
        die(EXIT_UNFIT, "%s has %s, so that no library can be preloaded: start it without", path,
            why);
    }
}

static void must_be_qemu(const char *path, const ElfProgram *program, unsigned machine)
{
    switch (program->kind) {
    case ELF_SCRIPT:
        return; /* the QEMU that it starts gets the library */
    case ELF_NONE:
    case ELF_LIBRARY:
        die(EXIT_UNFIT, "%s is neither a program nor a script that begins with #!", path);
    case ELF_STATIC:
        die(EXIT_UNFIT, "%s is linked statically, so that no library can be preloaded", path);
    case ELF_FOREIGN:
    case ELF_DYNAMIC:
        break;
    }
    if (program->kind == ELF_FOREIGN || program->machine != machine) {
        die(EXIT_UNFIT, "%s is a program for another machine than vmferry was built for", path);
    }
    if (elf_program_needs(program, "libvmferry.so")) {
        die(EXIT_UNFIT, "%s has vmferry in it already: start it without vmferry-qemu", path);
    }
    if (!elf_program_needs(program, "librdmacm.so")) {
        die(EXIT_UNFIT,
            "%s is no QEMU with RDMA migration: it does not need librdmacm; QEMU's "
            "configure has --enable-rdma",
            path);
    }
    if (!elf_program_needs(program, "libglib-2.0.so")) {
        die(EXIT_UNFIT, "%s is no QEMU: it does not need GLib", path);
    }
}

static void check_program(const char *path, unsigned machine)
{
    ElfProgram program;
    struct stat status;
    int fd;

    if (stat(path, &status) < 0) {
        die(errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND : EXIT_UNFIT, "cannot find %s: %s",
            path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        die(EXIT_UNFIT, "%s is no program", path);
    }
    if (access(path, X_OK) < 0) {
        die(EXIT_UNFIT, "%s may not be executed: %s", path, strerror(errno));
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !elf_program_open(&program, fd)) {
        die(EXIT_UNFIT, "cannot read %s: %s", path, strerror(errno));
    }
    must_be_qemu(path, &program, machine);
    if (program.kind != ELF_SCRIPT) {
        must_keep_library(path, fd, &status);
    }
    elf_program_close(&program);
    close(fd);
}

/* --- the library --- */

static bool in_folder(char *path, const char *folder)
{
    char candidate[PATH_MAX];

    return join(candidate, "%s/" LIBRARY, folder) && realpath(candidate, path);
}

/* In a build folder, below the prefix wherever that was moved, or where it was installed. */
static void find_library(char *path)
{
    const char *chosen = secure_getenv(PATH_VARIABLE);
    char folder[PATH_MAX];

    if (chosen && *chosen) {
        if (!realpath(chosen, path)) {
            die(EXIT_UNFIT, "cannot find %s, which " PATH_VARIABLE " names: %s", chosen,
                strerror(errno));
        }
        return;
    }
    if (*own_folder && join(folder, "%s/" BUILT_LIBRARY_FOLDER, own_folder) &&
        in_folder(path, folder)) {
        char plugins[PATH_MAX];

        if (join(folder, "%s/" BUILT_PLUGIN_FOLDER, own_folder) && realpath(folder, plugins)) {
            setenv("VMFERRY_PLUGIN_PATH", plugins, 0);
        }
        return;
    }
    if ((*own_folder && join(folder, "%s/" VMF_PRELOAD_FROM_BINDIR, own_folder) &&
         in_folder(path, folder)) ||
        in_folder(path, VMF_PRELOAD_DIR)) {
        return;
    }
    die(EXIT_UNFIT,
        "cannot find " LIBRARY " in " VMF_PRELOAD_DIR ": install vmferry with its plugin for "
        "rdma:, or name the library's path in " PATH_VARIABLE);
}

/* A library that the loader leaves out would only be missed in the first migration. */
static unsigned check_library(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ElfProgram library;
    char engine[PATH_MAX];
    unsigned machine;

    if (fd < 0 || !elf_program_open(&library, fd)) {
        die(EXIT_UNFIT, "cannot read %s: %s", path, strerror(errno));
    }
    if (library.kind != ELF_LIBRARY) {
        die(EXIT_UNFIT, "%s is no library for this machine", path);
    }
    if (strpbrk(path, ": ")) {
        die(EXIT_UNFIT, "%s has a blank or a colon in its path, which LD_PRELOAD cannot have",
            path);
    }
    if (!secure_getenv("VMFERRY_QEMU_ENGINE") &&
        join(engine, "%.*s" ENGINE, (int)(base_name(path) - path), path) &&
        access(engine, R_OK) < 0) {
        die(EXIT_UNFIT, "cannot read %s, which belongs to " LIBRARY ": %s", engine,
            strerror(errno));
    }
    machine = library.machine;
    elf_program_close(&library);
    close(fd);
    return machine;
}

/* Behind all others, because a sanitizer wants to be first. */
static void preload(const char *library)
{
    const char *others = getenv("LD_PRELOAD");
    char *list;

    if (!others || !*others) {
        others = NULL;
    }
    if (asprintf(&list, "%s%s%s", others ? others : "", others ? ":" : "", library) < 0 ||
        setenv("LD_PRELOAD", list, 1) < 0) {
        die(EXIT_UNFIT, "no memory for the environment");
    }
    free(list);
}

/* --- the command line --- */

static const char help[] =
    "usage: vmferry-qemu QEMU [ARGUMENT...]\n"
    "       QEMU-vmferry [ARGUMENT...]\n"
    "\n"
    "Starts an unpatched QEMU, such as qemu-system-x86_64, whose rdma: migration goes over\n"
    "vmferry. By a name that ends in -vmferry it starts the QEMU whose name is without that.\n"
    "\n"
    "  vmferry-qemu qemu-system-x86_64 ... -incoming rdma:[::]:4444   # on the destination\n"
    "  vmferry-qemu qemu-system-x86_64 ...                            # on the source\n"
    "  (qemu) migrate rdma:DESTINATION:4444\n"
    "\n"
    "  -h, --help     this text\n"
    "  -V, --version  the version\n"
    "\n"
    "VMFERRY_QEMU_OPTIONS  options for every migration: channels=8,registration=pin-all\n"
    "VMFERRY_QEMU_LIBRARY  the path of " LIBRARY ", if it is not the installed one\n"
    "VMFERRY_PLUGIN_PATH   folders of transport plugins, if not the installed one\n"
    "\n"
    "Exit status: that of QEMU; 2: wrong usage; 126: this program cannot be started with\n"
    "vmferry; 127: it is not there.\n";

static int print(const char *text)
{
    if (fputs(text, stdout) < 0 || fflush(stdout) < 0) {
        die(1, "cannot write to standard output: %s", strerror(errno));
    }
    return 0;
}

/* Starts the program in the place of this one. Does not return. */
static int start(const char *name, bool by_link, char **arguments)
{
    char path[PATH_MAX], library[PATH_MAX];

    find_program(name, by_link, path);
    find_library(library);
    check_program(path, check_library(library));
    preload(library);
    arguments[0] = by_link ? path : (char *)name;
    execv(path, arguments);
    die(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_UNFIT, "cannot start %s: %s", path,
        strerror(errno));
}

int main(int argc, char **argv)
{
    const char *name = base_name(argc > 0 ? argv[0] : "");
    const size_t length = strlen(name), ending = strlen(ENDING);

    find_self();
    if (length > ending && !strcmp(name + length - ending, ENDING)) {
        char *program = strndup(name, length - ending);

        return program ? start(program, true, argv) : EXIT_UNFIT;
    }
    if (argc < 2) {
        die(EXIT_USAGE, "the QEMU to start is missing (see vmferry-qemu --help)");
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        return print(help);
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        return print("vmferry-qemu " VMF_PROJECT_VERSION "\n");
    }
    if (argv[1][0] == '-') {
        die(EXIT_USAGE, "unknown option %s (see vmferry-qemu --help)", argv[1]);
    }
    return start(argv[1], false, argv + 1);
}
