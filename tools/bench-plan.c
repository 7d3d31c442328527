/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-plan.c -- a run's parameters as JSON, for the destination */

#include "bench.h"

static const char *const pattern_names[] = {"sequential", "random", "hotset"};

const char *bench_pattern_name(BenchPattern pattern)
{
    return pattern_names[pattern];
}

bool bench_pattern_parse(const char *name, BenchPattern *pattern)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(pattern_names); i++) {
        if (g_str_equal(name, pattern_names[i])) {
            *pattern = (BenchPattern)i;
            return true;
        }
    }
    return false;
}

char *bench_plan_encode(const BenchPlan *plan)
{
    g_autoptr(JsonBuilder) builder = json_builder_new();
    g_autoptr(JsonNode) root = NULL;

    json_builder_begin_object(builder);
#define NUMBER(name)                                                                               \
    json_builder_set_member_name(builder, #name);                                                  \
    json_builder_add_int_value(builder, (gint64)plan->name)
    NUMBER(ram);
    NUMBER(page_size);
    NUMBER(stream);
    NUMBER(devices);
    NUMBER(device_size);
    NUMBER(device_delay_ms);
    NUMBER(devices_slow);
    NUMBER(devices_by_stream);
    NUMBER(populate);
    NUMBER(verify);
    NUMBER(lead_seconds);
#undef NUMBER
    json_builder_end_object(builder);
    root = json_builder_get_root(builder);
    return json_to_string(root, FALSE);
}

char *bench_block_name(uint64_t token)
{
    return g_strdup_printf("bench.ram.%016" G_GINT64_MODIFIER "x", token);
}

static bool take(JsonObject *object, const char *name, uint64_t most, uint64_t *value,
                 GError **error)
{
    JsonNode *node = json_object_get_member(object, name);
    gint64 number = node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_int(node) : -1;

    if (number < 0 || (uint64_t)number > most) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL,
                    "the plan's \"%s\" is missing or not from 0 to %" G_GUINT64_FORMAT, name, most);
        return false;
    }
    *value = (uint64_t)number;
    return true;
}

bool bench_plan_decode(const char *text, gssize size, BenchPlan *plan, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    uint64_t devices, slow, delay, by_stream, populate, verify, lead;
    JsonNode *root;
    JsonObject *object;

    if (!json_parser_load_from_data(parser, text, size, error)) {
        return false;
    }
    root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "the plan is not a JSON object");
        return false;
    }
    object = json_node_get_object(root);
    if (!take(object, "ram", 1ull << 44, &plan->ram, error) ||
        !take(object, "page_size", 1u << 30, &plan->page_size, error) ||
        !take(object, "stream", 1ull << 40, &plan->stream, error) ||
        !take(object, "devices", 4096, &devices, error) ||
        !take(object, "device_size", 1u << 30, &plan->device_size, error) ||
        !take(object, "device_delay_ms", 60 * 1000, &delay, error) ||
        !take(object, "devices_slow", devices, &slow, error) ||
        !take(object, "devices_by_stream", 1, &by_stream, error) ||
        !take(object, "populate", 1, &populate, error) ||
        !take(object, "verify", 1, &verify, error) ||
        !take(object, "lead_seconds", 86400, &lead, error)) {
        return false;
    }
    if (plan->ram == 0 || plan->page_size < 512 || (plan->page_size & (plan->page_size - 1))) {
        g_set_error(error, VMF_ERROR, VMF_ERROR_PROTOCOL, "the plan has no RAM or no page size");
        return false;
    }
    plan->devices = (unsigned)devices;
    plan->device_delay_ms = (unsigned)delay;
    plan->devices_slow = (unsigned)slow;
    plan->devices_by_stream = by_stream;
    plan->populate = populate;
    plan->verify = verify;
    plan->lead_seconds = (unsigned)lead;
    return true;
}
