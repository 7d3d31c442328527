/* SPDX-License-Identifier: BSD-2-Clause */
/* output-file.h -- a file that appears under its name when it is whole, and not before */

#ifndef VMF_OUTPUT_FILE_H
#define VMF_OUTPUT_FILE_H

#include <stdbool.h>
#include <sys/types.h>
#include <glib.h>

/*
 * Begun before the work whose result it takes, so that a name that cannot be
 * written is refused before it. Until output_file_publish() nothing of it can be
 * seen under the name, and what is there stays as it is, however this process
 * ends. One thread at a time.
 */
typedef struct OutputFile OutputFile;

/*
 * Links are followed. NULL with *error when the name leads to something that is no
 * regular file (a folder, a device, a FIFO), or its folder is not there or cannot
 * be written to. Nothing is changed then. `mode' is the file's, less the umask.
 */
OutputFile *output_file_new(const char *name, mode_t mode, GError **error);
/* Open for reading and writing; the file's own. */
int output_file_fd(const OutputFile *file);

/*
 * Makes the file durable and gives it its name. What had the name before is kept
 * beside it until output_file_settle(). On false all is as it was before.
 */
bool output_file_publish(OutputFile *file, GError **error);
/* Where the older file is kept meanwhile; NULL: there was none. The file's own. */
const char *output_file_older(const OutputFile *file);
/* Behind publish: the older file is no longer wanted. */
void output_file_settle(OutputFile *file);
/*
 * Behind publish: the new one is not wanted after all. The name has the older file
 * again, or is gone when there was none. Left alone is a name that another program
 * has given to something else meanwhile.
 */
bool output_file_take_back(OutputFile *file, GError **error);

/* Forgets it. A published file stays, and so does an older one that was not settled. */
void output_file_free(OutputFile *file);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OutputFile, output_file_free)

#endif
