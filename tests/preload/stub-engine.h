/* SPDX-License-Identifier: BSD-2-Clause */
/* stub-engine.h -- an engine that counts discards, and has no device */

#ifndef VMF_TESTS_STUB_ENGINE_H
#define VMF_TESTS_STUB_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the engine has heard last, and how often. A test finds it by the name stub_engine. */
typedef struct StubEngine {
    void (*watch_discards)(bool on);
    void (*inside)(void); /* called while the engine hears of memory, or NULL */
    unsigned memory, file;
    void *address;
    size_t length;
    int advice, fd, mode;
    int64_t offset;
} StubEngine;

extern __attribute__((visibility("default"))) StubEngine stub_engine;

#endif
