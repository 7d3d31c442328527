/* SPDX-License-Identifier: BSD-2-Clause */
/* options.c -- parsing the value of an option by its description */

#include "options.h"

#include <string.h>

#include "decimal.h"

static bool bad_value(const VmfOptionSpec *spec, const char *text, const char *allowed,
                      GError **error)
{
    g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID, "option %s=%s: allowed is %s", spec->name,
                text, allowed);
    return false;
}

static bool is_one_of(const char *text, const char *const *words)
{
    return g_strv_contains(words, text);
}

static bool parse_bool(const VmfOptionSpec *spec, const char *text, uint64_t *number,
                       GError **error)
{
    static const char *const yes[] = {"on", "yes", "true", "1", NULL};
    static const char *const no[] = {"off", "no", "false", "0", NULL};

    *number = is_one_of(text, yes);
    return *number || is_one_of(text, no) || bad_value(spec, text, "on or off", error);
}

/* Digits, then a unit. A table of units ends with a NULL name. */
typedef struct Unit {
    const char *name;
    uint64_t factor;
} Unit;

static bool parse_number(const char *text, const Unit *units, uint64_t *number)
{
    char *end;

    if (!decimal_read(text, &end, number)) {
        return false;
    }
    for (; units->name; units++) {
        if (g_ascii_strcasecmp(end, units->name) == 0) {
            if (*number > UINT64_MAX / units->factor) {
                return false;
            }
            *number *= units->factor;
            return true;
        }
    }
    return false;
}

/*
 * A number without a limit of its own has the limit of its type. That is what its readers can hold:
 * 32 bits of a number, or an int of milliseconds as poll(2) takes it.
 */
static uint64_t most_of(const VmfOptionSpec *spec)
{
    static const uint64_t natural[] = {[VMF_OPTION_UINT] = UINT32_MAX,
                                       [VMF_OPTION_SIZE] = UINT64_MAX,
                                       [VMF_OPTION_DURATION] = INT32_MAX};

    return spec->max ? spec->max : natural[spec->type];
}

static bool parse_numeric(const VmfOptionSpec *spec, const char *text, uint64_t *number,
                          GError **error)
{
    static const Unit plain[] = {{"", 1}, {NULL, 0}};
    static const Unit sizes[] = {{"", 1},
                                 {"K", 1ull << 10},
                                 {"KiB", 1ull << 10},
                                 {"M", 1ull << 20},
                                 {"MiB", 1ull << 20},
                                 {"G", 1ull << 30},
                                 {"GiB", 1ull << 30},
                                 {"T", 1ull << 40},
                                 {"TiB", 1ull << 40},
                                 {NULL, 0}};
    static const Unit durations[] = {{"", 1000},     {"ms", 1},      {"s", 1000},
                                     {"min", 60000}, {"h", 3600000}, {NULL, 0}};
    const Unit *units = spec->type == VMF_OPTION_SIZE       ? sizes
                        : spec->type == VMF_OPTION_DURATION ? durations
                                                            : plain;
    const char *form = spec->type == VMF_OPTION_SIZE       ? "a size such as 65536, 64K, 1M or 2G"
                       : spec->type == VMF_OPTION_DURATION ? "a time such as 250ms, 10s or 2min"
                                                           : "a number";
    bool automatic = g_strcmp0(spec->default_value, "auto") == 0;
    const char *unit = spec->type == VMF_OPTION_DURATION ? " ms" : "";
    const uint64_t max = most_of(spec);
    g_autofree char *most =
        max < UINT64_MAX ? g_strdup_printf(" to %" G_GUINT64_FORMAT, max) : NULL;
    g_autofree char *allowed =
        g_strdup_printf("%s, from %" G_GUINT64_FORMAT "%s%s%s", form, spec->min, most ? most : "",
                        unit, automatic ? ", or auto" : "");

    if (automatic && g_str_equal(text, "auto")) {
        *number = 0;
        return true;
    }
    if (!parse_number(text, units, number) || *number < spec->min || *number > max) {
        return bad_value(spec, text, allowed, error);
    }
    return true;
}

static bool parse_choice(const VmfOptionSpec *spec, const char *text, GError **error)
{
    g_auto(GStrv) words = g_strsplit(spec->choices, "|", -1);
    g_autofree char *allowed = g_strjoinv(", ", words);

    return is_one_of(text, (const char *const *)words) || bad_value(spec, text, allowed, error);
}

bool option_parse(const VmfOptionSpec *spec, const char *text, OptionValue *value, GError **error)
{
    uint64_t number = 0; /* a bad text leaves *value as it was */

    switch (spec->type) {
    case VMF_OPTION_BOOL:
        if (!parse_bool(spec, text, &number, error)) {
            return false;
        }
        break;
    case VMF_OPTION_UINT:
    case VMF_OPTION_SIZE:
    case VMF_OPTION_DURATION:
        if (!parse_numeric(spec, text, &number, error)) {
            return false;
        }
        break;
    case VMF_OPTION_CHOICE:
        if (!parse_choice(spec, text, error)) {
            return false;
        }
        break;
    case VMF_OPTION_STRING:
        break;
    }
    value->number = number;
    g_free(value->text);
    value->text = g_strdup(text);
    return true;
}

bool option_spec_check(const VmfOptionSpec *spec, GError **error)
{
    OptionValue value = {.spec = spec};
    bool ok;

    if (spec->type > VMF_OPTION_STRING || !spec->help ||
        (spec->type == VMF_OPTION_CHOICE && !spec->choices)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_INVALID,
                    "option %s has an unknown type, no help or no choices", spec->name);
        return false;
    }
    ok = option_parse(spec, option_default(spec), &value, error);
    g_free(value.text);
    return ok;
}

const char *option_default(const VmfOptionSpec *spec)
{
    return spec->default_value ? spec->default_value : "";
}

char *options_describe(const VmfOptionSpec *const tables[], unsigned count)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < count; i++) {
        for (const VmfOptionSpec *spec = tables[i]; spec && spec->name; spec++) {
            g_string_append_printf(text, "%s%s (%s)", text->len ? "; " : "", spec->name,
                                   spec->help);
        }
    }
    return g_string_free(text, FALSE);
}
