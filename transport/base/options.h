/* SPDX-License-Identifier: BSD-2-Clause */
/* options.h -- parsing the value of an option by its description */

#ifndef VMF_OPTIONS_H
#define VMF_OPTIONS_H

#include <vmferry/uri.h>

typedef struct OptionValue {
    const VmfOptionSpec *spec;
    uint64_t number; /* bool, uint, size (bytes), duration (milliseconds) */
    char *text;      /* as given, of every type */
    bool set;        /* given, not the default */
} OptionValue;

/*
 * Parses `text' into value->number and value->text. The error says what is allowed; then *value is
 * unchanged.
 */
bool option_parse(const VmfOptionSpec *spec, const char *text, OptionValue *value, GError **error);
/* The text of the default; never NULL. */
const char *option_default(const VmfOptionSpec *spec);
/* Whether a description can be used and allows its own default. */
bool option_spec_check(const VmfOptionSpec *spec, GError **error);
/*
 * "name (help)" of each option in the tables, for the error about an unknown option. The caller
 * frees it.
 */
char *options_describe(const VmfOptionSpec *const tables[], unsigned count);

#endif
