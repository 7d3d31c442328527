/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-engine.c -- whose an object is, and the engine that has the objects of the main program */

#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the engine --- */

/* NULL until the main program makes its first object. */
static const QemuEngine *loaded;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static const QemuShim shim = {
    .size = sizeof(shim),
    .abi = QEMU_ENGINE_ABI,
    .watch_discards = shim_watch_discards,
};

/* Beside this library, unless the environment names another one. */
static bool engine_path(char *path, size_t size)
{
    const char *chosen = secure_getenv("VMFERRY_QEMU_ENGINE"), *slash;
    Dl_info self;
    int length;

    if (chosen && *chosen) {
        length = snprintf(path, size, "%s", chosen);
    } else if (dladdr(&shim, &self) && self.dli_fname && (slash = strrchr(self.dli_fname, '/'))) {
        length = snprintf(path, size, "%.*s/%s", (int)(slash - self.dli_fname), self.dli_fname,
                          QEMU_ENGINE_FILE);
    } else {
        length = snprintf(path, size, "%s", QEMU_ENGINE_FILE);
    }
    if (length < 0 || (size_t)length >= size) {
        shim_say("the path of %s is too long", QEMU_ENGINE_FILE);
        return false;
    }
    return true;
}

static const QemuEngine *load_engine(void)
{
    const QemuEngine *(*entry)(const QemuShim *);
    const QemuEngine *engine;
    char path[PATH_MAX];
    void *library;

    if (!engine_path(path, sizeof(path))) {
        return NULL;
    }
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        shim_say("cannot load %s: %s", path, dlerror());
        return NULL;
    }
    entry = dlsym(library, QEMU_ENGINE_ENTRY);
    if (!entry) {
        shim_say("cannot use %s: it has no %s", path, QEMU_ENGINE_ENTRY);
        return NULL;
    }
    engine = entry(&shim);
    if (!engine || engine->abi != QEMU_ENGINE_ABI || engine->size < sizeof(*engine)) {
        shim_say("cannot use %s: it is of another version than this library", path);
        return NULL;
    }
    return engine;
}

static const QemuEngine *engine_if_loaded(void)
{
    return __atomic_load_n(&loaded, __ATOMIC_ACQUIRE);
}

const QemuEngine *shim_engine(void)
{
    const QemuEngine *engine = engine_if_loaded();

    if (!engine) {
        pthread_mutex_lock(&loading);
        engine = engine_if_loaded();
        if (!engine) {
            engine = load_engine();
            __atomic_store_n(&loaded, engine, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&loading);
    }
    if (!engine) {
        errno = ENODEV;
    }
    return engine;
}

/* --- whose is it? --- */

const QemuEngine *shim_channel_engine(const struct rdma_event_channel *channel)
{
    const QemuEngine *engine = engine_if_loaded();

    return engine && engine->owns_channel(channel) ? engine : NULL;
}

const QemuEngine *shim_addrinfo_engine(const struct rdma_addrinfo *info)
{
    const QemuEngine *engine = engine_if_loaded();

    return engine && engine->owns_addrinfo(info) ? engine : NULL;
}

const QemuEngine *shim_event_engine(const struct rdma_cm_event *event)
{
    if (!event || !event->id) {
        return NULL;
    }
    /* The id of a request may be gone before its event is acknowledged. */
    return shim_channel_engine(event->listen_id ? event->listen_id->channel : event->id->channel);
}

const QemuEngine *shim_context_engine(const struct ibv_context *context)
{
    const QemuEngine *engine = engine_if_loaded();

    return engine && context && context->abi_compat == engine->context_mark ? engine : NULL;
}
