/* SPDX-License-Identifier: BSD-2-Clause */
/* shim.h -- what the parts of the preloaded library share: the real functions, and the engine */

#ifndef VMF_RDMA_SHIM_H
#define VMF_RDMA_SHIM_H

#include "qemu-engine.h"

#define SHIM_API __attribute__((visibility("default")))

/* A line on standard error. It leaves errno alone. */
void shim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * The function that the program would have called without this library. `found' is a static
 * variable of the caller, for one name alone. NULL with a message and ENOSYS: there is none.
 */
void *shim_real(void **found, const char *name);

/* Whether a return address lies in the main program, and not in a library. */
bool shim_called_by_program(const void *address);

/* The engine, loaded if need be. NULL with a message and ENODEV. */
const QemuEngine *shim_engine(void);

/* The engine, if the object is its own, else NULL. None of them loads it. */
const QemuEngine *shim_channel_engine(const struct rdma_event_channel *channel);
const QemuEngine *shim_addrinfo_engine(const struct rdma_addrinfo *info);
const QemuEngine *shim_event_engine(const struct rdma_cm_event *event);
const QemuEngine *shim_context_engine(const struct ibv_context *context);

/* QemuShim.watch_discards. */
void shim_watch_discards(const QemuDiscardWatch *watch);

/*
 * A function that belongs to the engine if `owner' is an engine, and to the real library
 * otherwise. `failed' is what it returns when there is no real one.
 */
#define SHIM_FORWARD(type, name, failed, owner, parameters, arguments)                             \
    SHIM_API type name parameters                                                                  \
    {                                                                                              \
        static void *found;                                                                        \
        const QemuEngine *engine = owner;                                                          \
        type(*real) parameters;                                                                    \
                                                                                                   \
        if (engine) {                                                                              \
            return engine->name arguments;                                                         \
        }                                                                                          \
        real = shim_real(&found, #name);                                                           \
        return real ? real arguments : failed;                                                     \
    }

/* A function that makes something out of nothing: for the main program the engine makes it. */
#define SHIM_MAKE(type, name, failed, parameters, arguments)                                       \
    SHIM_API type name parameters                                                                  \
    {                                                                                              \
        static void *found;                                                                        \
        type(*real) parameters;                                                                    \
                                                                                                   \
        if (shim_called_by_program(__builtin_return_address(0))) {                                 \
            const QemuEngine *engine = shim_engine();                                              \
                                                                                                   \
            return engine ? engine->name arguments : failed;                                       \
        }                                                                                          \
        real = shim_real(&found, #name);                                                           \
        return real ? real arguments : failed;                                                     \
    }

#endif
