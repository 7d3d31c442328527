/* SPDX-License-Identifier: BSD-2-Clause */
/* output-file.c -- a file that appears under its name when it is whole, and not before */

#include "output-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include <vmferry/error.h>

#define LINKS_MAX 40 /* as the kernel follows them */

struct OutputFile {
    char *path;      /* after all links */
    char *folder;    /* its folder */
    char *temporary; /* its name until it is published; NULL: it has none */
    char *older;     /* where the older file is kept; NULL: nowhere */
    int fd;
};

static bool failed(GError **error, const char *what, const char *path)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot %s %s: %s", what, path, g_strerror(errno));
    return false;
}

/* --- the name --- */

static char *follow_links(const char *name, GError **error)
{
    g_autofree char *path = g_strdup(name);

    for (unsigned i = 0; i < LINKS_MAX; i++) {
        struct stat info;
        g_autofree char *target = NULL, *folder = NULL;

        if (lstat(path, &info) < 0 || !S_ISLNK(info.st_mode)) {
            return g_steal_pointer(&path);
        }
        target = g_file_read_link(path, NULL);
        if (!target) {
            failed(error, "follow the link", path);
            return NULL;
        }
        folder = g_path_get_dirname(path);
        g_free(path);
        path = g_path_is_absolute(target) ? g_steal_pointer(&target)
                                          : g_build_filename(folder, target, NULL);
    }
    errno = ELOOP;
    failed(error, "follow the link", name);
    return NULL;
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)                    ? "a folder"
           : S_ISFIFO(mode)                 ? "a FIFO"
           : S_ISSOCK(mode)                 ? "a socket"
           : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                            : "not a regular file";
}

/* Only a regular file is replaced, because without a device node the system might break. */
static bool may_be_replaced(const char *path, GError **error)
{
    struct statx info;

    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &info) < 0) {
        return errno == ENOENT || failed(error, "use", path);
    }
    if (!S_ISREG(info.stx_mode)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "%s is %s: give the name of a regular file, or a new name", path,
                    kind_of(info.stx_mode));
        return false;
    }
    if (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "%s is a mount point, and cannot be replaced: give another name", path);
        return false;
    }
    return true;
}

/* --- the file without a name --- */

/* The file gets its name by /proc, which is not mounted everywhere. */
static bool can_be_linked(int fd)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", fd);
    struct stat info;

    return stat(self, &info) == 0;
}

static bool create(OutputFile *file, mode_t mode, GError **error)
{
    /* A file without a name leaves nothing when this process ends. */
    file->fd = open(file->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
    if (file->fd >= 0 && !can_be_linked(file->fd)) {
        close(file->fd);
        file->fd = -1;
        errno = EOPNOTSUPP;
    }
    if (file->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        file->temporary = g_strconcat(file->path, ".XXXXXX", NULL);
        file->fd = g_mkstemp_full(file->temporary, O_RDWR | O_CLOEXEC, (int)mode);
    }
    if (file->fd < 0) {
        g_clear_pointer(&file->temporary, g_free);
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "cannot create %s in the folder %s: %s",
                    file->path, file->folder, g_strerror(errno));
        return false;
    }
    return true;
}

OutputFile *output_file_new(const char *name, mode_t mode, GError **error)
{
    g_autoptr(OutputFile) file = g_new0(OutputFile, 1);

    file->fd = -1;
    if (!*name || g_str_has_suffix(name, "/")) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "\"%s\" is not the name of a file", name);
        return NULL;
    }
    file->path = follow_links(name, error);
    if (!file->path || !may_be_replaced(file->path, error)) {
        return NULL;
    }
    file->folder = g_path_get_dirname(file->path);
    return create(file, mode, error) ? g_steal_pointer(&file) : NULL;
}

int output_file_fd(const OutputFile *file)
{
    return file->fd;
}

/* --- publishing --- */

static bool sync_folder(const OutputFile *file, GError **error)
{
    int fd = open(file->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;

    if (!ok) {
        failed(error, "sync", file->folder);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static char *name_beside(const OutputFile *file)
{
    return g_strdup_printf("%s.%08x", file->path, g_random_int());
}

/* First the file gets another name, because only a rename replaces an older file. */
static bool give_name(OutputFile *file, GError **error)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", file->fd);

    if (file->temporary) {
        return true;
    }
    file->temporary = name_beside(file);
    if (linkat(AT_FDCWD, self, AT_FDCWD, file->temporary, AT_SYMLINK_FOLLOW) < 0) {
        failed(error, "create", file->temporary);
        g_clear_pointer(&file->temporary, g_free);
        return false;
    }
    return true;
}

/* For file systems that cannot exchange two names. For a moment no file has the name. */
static bool step_aside(OutputFile *file, GError **error)
{
    g_autofree char *older = name_beside(file);

    if (rename(file->path, older) < 0) {
        return failed(error, "rename", file->path);
    }
    if (rename(file->temporary, file->path) < 0) {
        failed(error, "rename a file to", file->path);
        (void)rename(older, file->path);
        return false;
    }
    file->older = g_steal_pointer(&older);
    g_clear_pointer(&file->temporary, g_free);
    return true;
}

/* Exchanges the names: the older file has the temporary name after it. */
static bool exchange(OutputFile *file, GError **error)
{
    if (!may_be_replaced(file->path, error)) {
        return false; /* it was made in between */
    }
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, RENAME_EXCHANGE) == 0) {
        file->older = g_steal_pointer(&file->temporary);
        return true;
    }
    return errno == EINVAL || errno == ENOSYS ? step_aside(file, error)
                                              : failed(error, "rename a file to", file->path);
}

static bool take_name(OutputFile *file, GError **error)
{
    struct stat info;

    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, RENAME_NOREPLACE) == 0 ||
        ((errno == EINVAL || errno == ENOSYS) && lstat(file->path, &info) < 0 &&
         rename(file->temporary, file->path) == 0)) {
        g_clear_pointer(&file->temporary, g_free);
        return true;
    }
    return lstat(file->path, &info) == 0 ? exchange(file, error)
                                         : failed(error, "rename a file to", file->path);
}

bool output_file_publish(OutputFile *file, GError **error)
{
    if (fsync(file->fd) < 0) {
        return failed(error, "write", file->path);
    }
    if (!give_name(file, error) || !take_name(file, error)) {
        return false;
    }
    if (!sync_folder(file, error)) {
        output_file_take_back(file, NULL);
        return false;
    }
    return true;
}

const char *output_file_older(const OutputFile *file)
{
    return file->older;
}

void output_file_settle(OutputFile *file)
{
    if (file->older) {
        g_unlink(file->older);
        g_clear_pointer(&file->older, g_free);
    }
}

static bool has_its_name(const OutputFile *file)
{
    struct stat named, own;

    return lstat(file->path, &named) == 0 && fstat(file->fd, &own) == 0 &&
           named.st_dev == own.st_dev && named.st_ino == own.st_ino;
}

bool output_file_take_back(OutputFile *file, GError **error)
{
    if (!has_its_name(file)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_IO, "%s has become another file", file->path);
        return false;
    }
    if (file->older ? rename(file->older, file->path) < 0 : unlink(file->path) < 0) {
        return failed(error, file->older ? "put back" : "remove", file->path);
    }
    g_clear_pointer(&file->older, g_free);
    return sync_folder(file, error);
}

void output_file_free(OutputFile *file)
{
    if (!file) {
        return;
    }
    if (file->temporary) {
        g_unlink(file->temporary);
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    g_free(file->temporary);
    g_free(file->older);
    g_free(file->path);
    g_free(file->folder);
    g_free(file);
}
