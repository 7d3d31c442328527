/* SPDX-License-Identifier: BSD-2-Clause */
/* ram.h -- the guest's RAM blocks, as a VMM describes them to vmferry */

#ifndef VMFERRY_RAM_H
#define VMFERRY_RAM_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <vmferry/error.h>

G_BEGIN_DECLS

#define VMF_RAM_NAME_MAX 255 /* bytes of a block's name, without the final NUL */
#define VMF_RAM_BLOCKS_MAX 16383

/*
 * One contiguous range of guest RAM. The two sides of a migration recognise a
 * block by its name; addresses and order may differ between them. The fields
 * are for reading: vmf_ram_blocks_add() fills them and they never change.
 */
typedef struct VmfRamBlock {
    const char *name;   /* owned by the set */
    uint8_t *host;      /* first byte in this process */
    uint64_t length;    /* bytes; need not be a multiple of page_size */
    uint32_t page_size; /* bytes, a power of two, at least 512: the grain of zero detection */
    uint32_t index;     /* position in the set, from 0 */
    int fd;             /* the file behind a shared mapping, or -1 (owned by the caller) */
    uint64_t fd_offset; /* where in that file the block begins, as the caller said */
    bool resizable;     /* see vmf_ram_blocks_set_resizable() */
} VmfRamBlock;

/* A set of RAM blocks, reference counted. Build it in one thread, then share it. */
typedef struct VmfRamBlocks VmfRamBlocks;

VMF_API VmfRamBlocks *vmf_ram_blocks_new(void);
VMF_API VmfRamBlocks *vmf_ram_blocks_ref(VmfRamBlocks *blocks);
VMF_API void vmf_ram_blocks_unref(VmfRamBlocks *blocks);

/*
 * Adds a block. The memory stays the caller's, and must stay mapped until the
 * last session that uses the set is freed. Fails with VMF_ERROR_INVALID for an
 * empty, too long or duplicate name, length 0, a page size that is no power of
 * two, or memory that overlaps another block of the set.
 * Returns the block (owned by the set), or NULL with *error set.
 *
 * Any memory will do: anonymous, private or shared mappings of files, huge pages, several
 * mappings side by side. When a session is set up, all of every block must be mapped and
 * readable, and on a destination writable: else set-up fails on both sides, and the error names
 * the block and the range. A source may have it read-only (a ROM). That is looked up in
 * /proc/self/smaps, or maps, once for all blocks. Without /proc it is not checked.
 *
 * Memory that nobody has touched is neither read nor sent. What tells is the page table for
 * private anonymous memory, and holes of the file for shared memory
 * (vmf_ram_blocks_add_shared()). Where nothing tells, because /proc is not mounted or the
 * kernel has no smaps, all counts as touched: it is read, and what is zero is not sent.
 *
 * Memory may be registered with userfaultfd (guest RAM that is filled when it is first used),
 * if it was when the session was set up, and stays so: then it is read like any other, which waits
 * for the handler, in the channels' threads. The handler must not wait for the session. Memory that
 * is registered later may be taken for untouched where pages are missing.
 */
VMF_API const VmfRamBlock *vmf_ram_blocks_add(VmfRamBlocks *blocks, const char *name, void *host,
                                              uint64_t length, uint32_t page_size, GError **error);

/*
 * Like vmf_ram_blocks_add() for memory that is a MAP_SHARED mapping of fd at
 * fd_offset (memfd, hugetlbfs, a file). Naming the file lets vmferry find the
 * holes in it without touching the memory; without it a shared mapping is read
 * in full, because only the file knows what was never written. Holes are believed on tmpfs
 * (which memfd is) and hugetlbfs alone: other file systems may not know yet what was written to
 * the mapping. Where the block lies in the file is taken from the mapping itself; if it is
 * another file's, or its pieces are in another order there, it is read in full. lseek(2) moves
 * the file offset of fd.
 */
VMF_API const VmfRamBlock *vmf_ram_blocks_add_shared(VmfRamBlocks *blocks, const char *name,
                                                     void *host, uint64_t length,
                                                     uint32_t page_size, int fd, uint64_t fd_offset,
                                                     GError **error);

/*
 * Says that of this block of the set not all need be in use (QEMU's firmware
 * tables are such): a source may have it with a smaller length. Does nothing for a block of
 * another set.
 */
VMF_API void vmf_ram_blocks_set_resizable(VmfRamBlocks *blocks, const VmfRamBlock *block);

/*
 * Says that a destination may give memory of the set back to the system (MADV_DONTNEED
 * of madvise(2)) where the source has nothing, and so make it resident while it waits,
 * which the option populate asks for. It must hold from vmf_session_accept() until the
 * session is freed that nobody but vmferry has pages of the set's private memory
 * pinned: no device is assigned to the VM (VFIO, vDPA), nothing else has registered
 * it. Shared memory is left alone. Say it before vmf_session_accept(). A source need not.
 */
VMF_API void vmf_ram_blocks_set_discardable(VmfRamBlocks *blocks);

/*
 * Says that memory of a block was given back to the system, and reads as zero now: by
 * MADV_DONTNEED, MADV_REMOVE or a hole punched in its file, as balloons, free page reporting and
 * virtio-mem do it. An RDMA device that has the memory registered goes on with the old page
 * frames, while the guest gets others: without this call, what the guest writes there afterwards
 * is sent wrong, silently. With it, no range that is saved after the call returns is read from
 * the old frames: it is registered anew first.
 *
 * Call it behind the discard, and before the guest can use the range again: a device model calls
 * it before it answers the guest's request. What cannot call it must not discard from
 * vmf_session_connect() or vmf_session_accept() until the session is freed (QEMU:
 * ram_block_uncoordinated_discard_disable()). A discard changes memory as a write of the guest's
 * does: if the zeros matter, save the range again.
 *
 * On a source it does not wait, and writes that are under way are not waited for either: what
 * they carry was saved before, and is saved again if the guest writes there. On a destination, a
 * discard loses what the source has sent; where the range is registered with a device, the source
 * may be writing to the old frames at this moment, so the session is ended by an error.
 *
 * Any thread, at any time between vmf_ram_blocks_new() and the last vmf_ram_blocks_unref(); does
 * no more than read a number when there is no session. `block' is one of the set's; a range past
 * its end is cut.
 */
VMF_API void vmf_ram_discarded(VmfRamBlocks *blocks, const VmfRamBlock *block, uint64_t offset,
                               uint64_t length);

/*
 * For a destination that has no VM, and so no RAM of its own to be compared: what
 * the source names and the set lacks is added to it, in memory that `allocate'
 * gives. It is called in a thread of the session's, returns the memory, page
 * aligned and zero, which stays the caller's, or NULL with *error.
 */
typedef void *(*VmfRamAllocate)(void *opaque, const char *name, uint64_t length, GError **error);
VMF_API void vmf_ram_blocks_set_allocator(VmfRamBlocks *blocks, VmfRamAllocate allocate,
                                          void *opaque);

VMF_API unsigned vmf_ram_blocks_count(const VmfRamBlocks *blocks);
VMF_API const VmfRamBlock *vmf_ram_blocks_get(const VmfRamBlocks *blocks, unsigned index);
/* NULL when there is none of that name. */
VMF_API const VmfRamBlock *vmf_ram_blocks_find(const VmfRamBlocks *blocks, const char *name);
VMF_API uint64_t vmf_ram_blocks_total(const VmfRamBlocks *blocks); /* bytes */

/*
 * Whether `size' bytes are all zero; any alignment and size. Fast both ways: a page that is not
 * zero is mostly seen by its first words, and a zero one is read at about memory bandwidth. Any
 * thread. The memory may change meanwhile: then the answer is for some mixture of moments.
 */
VMF_API bool vmf_is_zero(const void *memory, size_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfRamBlocks, vmf_ram_blocks_unref)

G_END_DECLS

#endif
