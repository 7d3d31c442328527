/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz-replay.c -- drives a fuzz target without libFuzzer: seeds, mutated from a fixed start
 *
 * replay-NAME [ROUNDS [START]]: so many mutations of each seed, from that start.
 */

#include <glib.h>
#include <stdlib.h>

#include "fuzz.h"

#define SIZE_MAX_MUTATED 512

static size_t mutate(GRand *random, const FuzzSeed *seed, uint8_t out[SIZE_MAX_MUTATED])
{
    size_t size = MIN(seed->size, SIZE_MAX_MUTATED);
    int changes = g_rand_int_range(random, 0, 8);

    memcpy(out, seed->bytes, size);
    if (g_rand_int_range(random, 0, 4) == 0) {
        size_t longer = (size_t)g_rand_int_range(random, 0, SIZE_MAX_MUTATED + 1);
        for (; size < longer; size++) {
            out[size] = (uint8_t)g_rand_int(random);
        }
        size = longer;
    }
    for (int i = 0; size && i < changes; i++) {
        static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        size_t at = (size_t)g_rand_int_range(random, 0, (gint32)size);

        out[at] = g_rand_boolean(random) ? edges[g_rand_int_range(random, 0, 5)]
                                         : (uint8_t)g_rand_int(random);
    }
    return size;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20000;
    GRand *random = g_rand_new_with_seed(argc > 2 ? (guint32)strtoul(argv[2], NULL, 10) : 1);

    for (const FuzzSeed *seed = fuzz_seeds; seed->bytes; seed++) {
        LLVMFuzzerTestOneInput((const uint8_t *)seed->bytes, seed->size);
        for (unsigned i = 0; i < rounds; i++) {
            uint8_t bytes[SIZE_MAX_MUTATED];
            size_t size = mutate(random, seed, bytes);
            /* In memory of exactly its size, so that the sanitizer sees each access past it. */
            uint8_t *exact = g_malloc(MAX(size, 1));

            memcpy(exact, bytes, size);
            LLVMFuzzerTestOneInput(exact, size);
            g_free(exact);
        }
    }
    g_rand_free(random);
    return 0;
}
