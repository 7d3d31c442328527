/* SPDX-License-Identifier: BSD-2-Clause */
/* shim-memory.c -- memory that the process gives back: the engine hears of it, if it wants to */

#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Allocators call these functions, in signal handlers and before main(). So nothing here allocates
 * or takes a lock. The real functions are looked up at the start, and a system call does before.
 */
static int (*real_madvise)(void *, size_t, int);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_fallocate64)(int, int, off64_t, off64_t);

static const QemuDiscardWatch *watch;
/* This thread is in a function of the watch. */
static __thread bool telling __attribute__((tls_model("initial-exec")));

__attribute__((constructor)) static void find_real_functions(void)
{
    __atomic_store_n(&real_madvise, dlsym(RTLD_NEXT, "madvise"), __ATOMIC_RELAXED);
    __atomic_store_n(&real_fallocate, dlsym(RTLD_NEXT, "fallocate"), __ATOMIC_RELAXED);
    __atomic_store_n(&real_fallocate64, dlsym(RTLD_NEXT, "fallocate64"), __ATOMIC_RELAXED);
}

void shim_watch_discards(const QemuDiscardWatch *new_watch)
{
    __atomic_store_n(&watch, new_watch, __ATOMIC_RELEASE);
}

/*
 * The watch, if the main program has called, and this thread is not in it already. What allocators
 * and the engine's own library give back is not the guest's.
 */
static const QemuDiscardWatch *watch_to_tell(const void *caller)
{
    const QemuDiscardWatch *told = telling ? NULL : __atomic_load_n(&watch, __ATOMIC_ACQUIRE);

    return told && shim_called_by_program(caller) ? told : NULL;
}

SHIM_API int madvise(void *address, size_t length, int advice)
{
    int (*real)(void *, size_t, int) = __atomic_load_n(&real_madvise, __ATOMIC_RELAXED);
    int result =
        real ? real(address, length, advice) : (int)syscall(SYS_madvise, address, length, advice);

    if (result == 0 && (advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == MADV_FREE)) {
        const QemuDiscardWatch *told = watch_to_tell(__builtin_return_address(0));

        if (told) {
            const int error = errno;

            telling = true;
            told->memory(address, length, advice);
            telling = false;
            errno = error;
        }
    }
    return result;
}

static int tell_hole(const void *caller, int result, int fd, int mode, int64_t offset,
                     int64_t length)
{
    if (result == 0 && mode & FALLOC_FL_PUNCH_HOLE) {
        const QemuDiscardWatch *told = watch_to_tell(caller);

        if (told) {
            const int error = errno;

            telling = true;
            told->file(fd, offset, length, mode);
            telling = false;
            errno = error;
        }
    }
    return result;
}

/* Only where an argument has room for an offset: others have called too early. */
static int call_fallocate(int fd, int mode, int64_t offset, int64_t length)
{
#ifdef __LP64__
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
#else
    (void)fd;
    (void)mode;
    (void)offset;
    (void)length;
    errno = ENOSYS;
    return -1;
#endif
}

SHIM_API int fallocate(int fd, int mode, off_t offset, off_t length)
{
    int (*real)(int, int, off_t, off_t) = __atomic_load_n(&real_fallocate, __ATOMIC_RELAXED);

    return tell_hole(__builtin_return_address(0),
                     real ? real(fd, mode, offset, length)
                          : call_fallocate(fd, mode, offset, length),
                     fd, mode, offset, length);
}

SHIM_API int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    int (*real)(int, int, off64_t, off64_t) = __atomic_load_n(&real_fallocate64, __ATOMIC_RELAXED);

    return tell_hole(__builtin_return_address(0),
                     real ? real(fd, mode, offset, length)
                          : call_fallocate(fd, mode, offset, length),
                     fd, mode, offset, length);
}
