/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz.h -- a fuzz target: runs under libFuzzer, or replays mutated seeds in the unit suite */

#ifndef VMF_TESTS_FUZZ_H
#define VMF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct FuzzSeed {
    const char *bytes;
    size_t size;
} FuzzSeed;

/* The seeds of the replay. The list ends with an all-zero entry. */
extern const FuzzSeed fuzz_seeds[];
#define FUZZ_SEED(text)                                                                            \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }

#endif
