/* SPDX-License-Identifier: BSD-2-Clause */
/* commands.h -- subcommands of vmferry that have files of their own */

#ifndef VMF_COMMANDS_H
#define VMF_COMMANDS_H

#include <stdbool.h>
#include <glib.h>

/* argv[0] is the subcommand's name. */
bool receive_command(int argc, char **argv, GError **error);
bool send_command(int argc, char **argv, GError **error);

#endif
