/* SPDX-License-Identifier: BSD-2-Clause */
/* mappings.c -- the mappings of this process, read once from the kernel and looked up fast */

#include "mappings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

/* --- one line --- */

/* Reads a number and the character after it, and moves *at past both. */
static bool number(const char **at, guint base, char next, uint64_t *value)
{
    char *end;

    *value = g_ascii_strtoull(*at, &end, base);
    if (end == *at || *end != next) {
        return false;
    }
    *at = end + 1;
    return true;
}

/* "7f00-7f10 rw-p 00001000 00:1d 4711   /name" */
static bool parse_head(const char *line, Mapping *mapping)
{
    uint64_t dev_major, dev_minor;
    const char *perms;
    char *end;

    if (!number(&line, 16, '-', &mapping->from) || !number(&line, 16, ' ', &mapping->to) ||
        strnlen(line, 5) < 5) {
        return false;
    }
    perms = line;
    line += 5;
    if (!number(&line, 16, ' ', &mapping->offset) || !number(&line, 16, ':', &dev_major) ||
        !number(&line, 16, ' ', &dev_minor)) {
        return false;
    }
    mapping->inode = g_ascii_strtoull(line, &end, 10);
    mapping->dev_major = (uint32_t)dev_major;
    mapping->dev_minor = (uint32_t)dev_minor;
    mapping->readable = perms[0] == 'r';
    mapping->writable = perms[1] == 'w';
    mapping->shared = perms[3] == 's';
    return end != line && mapping->from < mapping->to;
}

static bool has_flag(const char *flags, const char *flag)
{
    const char *at = strstr(flags, flag);

    return at && (at[3] == ' ' || at[3] == '\n' || at[3] == '\0');
}

static void parse_flags(const char *flags, Mapping *mapping)
{
    mapping->lazy = has_flag(flags, " um") || has_flag(flags, " ui");
    mapping->handed = mapping->lazy || has_flag(flags, " uw");
    mapping->unforked = has_flag(flags, " dc");
    mapping->unreserved = has_flag(flags, " nr");
}

/* --- all of them --- */

#define FLAGS "VmFlags:"

/*
 * A mapping that changed while the text was made may come again, or overlap: the first one counts.
 */
static void add_line(Mappings *mappings, const char *line, bool *wanted)
{
    GArray *list = mappings->list;

    if (g_ascii_isxdigit(*line) && !g_ascii_isupper(*line)) {
        Mapping mapping = {0};
        const uint64_t end = list->len ? g_array_index(list, Mapping, list->len - 1).to : 0;

        *wanted = parse_head(line, &mapping) && mapping.from >= end;
        if (*wanted) {
            g_array_append_val(list, mapping);
        }
    } else if (*wanted && g_str_has_prefix(line, FLAGS)) {
        parse_flags(line + strlen(FLAGS), &g_array_index(list, Mapping, list->len - 1));
        mappings->flags_known = true;
    }
}

static bool read_file(Mappings *mappings, const char *path)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    bool wanted = false;

    if (!file) {
        return false;
    }
    while (getline(&line, &size, file) > 0) {
        add_line(mappings, line, &wanted);
    }
    free(line);
    if (ferror(file)) { /* half a list could miss mappings */
        g_array_set_size(mappings->list, 0);
    }
    fclose(file);
    return mappings->list->len > 0;
}

void mappings_read(Mappings *mappings)
{
    mappings->list = g_array_new(FALSE, FALSE, sizeof(Mapping));
    mappings->flags_known = false;
    /* smaps says all that maps does, but not every kernel has it. */
    if (VMF_FAULT("read smaps") || !read_file(mappings, "/proc/self/smaps")) {
        mappings->flags_known = false;
        if (!VMF_FAULT("read maps")) {
            read_file(mappings, "/proc/self/maps");
        }
    }
}

void mappings_parse(Mappings *mappings, const char *text)
{
    bool wanted = false;

    mappings->list = g_array_new(FALSE, FALSE, sizeof(Mapping));
    mappings->flags_known = false;
    while (*text) {
        const char *end = strchrnul(text, '\n');
        g_autofree char *line = g_strndup(text, (gsize)(end - text));

        add_line(mappings, line, &wanted);
        text = *end ? end + 1 : end;
    }
}

void mappings_clear(Mappings *mappings)
{
    g_clear_pointer(&mappings->list, g_array_unref);
}

unsigned mappings_search(const Mappings *mappings, uint64_t address)
{
    unsigned low = 0, high = mappings->list->len;

    while (low < high) {
        const unsigned middle = low + (high - low) / 2;

        if (g_array_index(mappings->list, Mapping, middle).to <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
