/* SPDX-License-Identifier: BSD-2-Clause */
/* output-file.h -- a file that appears under its name when it is whole, and not before */

#ifndef VMF_OUTPUT_FILE_H
#define VMF_OUTPUT_FILE_H

#include <stdbool.h>
#include <sys/types.h>
#include <glib.h>

/*
 * Make it before the work whose result it takes, so that a bad name is refused first. Until
 * output_file_publish() it is not seen under the name, and an older file stays, however this
 * process ends. One thread at a time.
 */
typedef struct OutputFile OutputFile;

/*
 * Follows links. Returns NULL with *error if the name belongs to a folder, a device or a FIFO, or
 * its folder is missing or not writable. Nothing has changed then. `mode' is the file's, less the
 * umask.
 */
OutputFile *output_file_new(const char *name, mode_t mode, GError **error);
/* A descriptor for reading and writing, which the file owns. */
int output_file_fd(const OutputFile *file);

/*
 * Makes the file durable, and gives it its name. An older file is kept beside it until
 * output_file_settle(). If it returns false, all is as it was.
 */
bool output_file_publish(OutputFile *file, GError **error);
/* Where the older file is kept; NULL: there was none. The file owns the string. */
const char *output_file_older(const OutputFile *file);
/* After publish: deletes the older file. */
void output_file_settle(OutputFile *file);
/*
 * After publish: deletes the new file. The older file, if there was one, has its name again. A file
 * that another program has made under the name stays.
 */
bool output_file_take_back(OutputFile *file, GError **error);

/* Frees it. A published file stays, and so does an older one that was not settled. */
void output_file_free(OutputFile *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OutputFile, output_file_free)

#endif
