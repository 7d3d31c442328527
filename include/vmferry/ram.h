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
/* The most blocks of a set. */
#define VMF_RAM_BLOCKS_MAX 16383

/*
 * One contiguous range of guest RAM. The two sides of a migration know a block by its name.
 * Addresses and order may differ between them. vmf_ram_blocks_add() fills the fields, which are for
 * reading. Only `resizable' and the `host' of an unplaced block change later.
 */
typedef struct VmfRamBlock {
    const char *name;   /* owned by the set */
    uint8_t *host;      /* its first byte in this process; NULL: not known yet */
    uint64_t length;    /* bytes; need not be a multiple of page_size */
    uint32_t page_size; /* bytes, a power of two from 512 up: the unit of zero detection */
    uint32_t index;     /* position in the set, from 0 */
    int fd;             /* the file of a shared mapping, or -1; the caller's */
    uint64_t fd_offset; /* where the block begins in that file, as the caller said */
    bool resizable;     /* see vmf_ram_blocks_set_resizable() */
} VmfRamBlock;

/*
 * A set of RAM blocks, reference counted. One thread builds it; after that all threads may read it.
 * A late set is read by other threads after vmf_session_name_ram() (vmf_ram_blocks_set_late()).
 * References may be taken and dropped in any thread. vmf_ram_blocks_unref() allows NULL.
 */
typedef struct VmfRamBlocks VmfRamBlocks;

VMF_API VmfRamBlocks *vmf_ram_blocks_new(void);
VMF_API VmfRamBlocks *vmf_ram_blocks_ref(VmfRamBlocks *blocks);
VMF_API void vmf_ram_blocks_unref(VmfRamBlocks *blocks);

/*
 * Adds a block, and returns it; the set owns the VmfRamBlock. The memory stays the caller's. It
 * must stay mapped until the last session with this set is freed. Returns NULL with
 * VMF_ERROR_INVALID for an empty, too long or known name, no memory, or memory of another block of
 * the set. A page size that is no power of two from 512 up, or one block too many, is such an
 * error, too.
 *
 * All kinds of memory will do: anonymous memory, private or shared mappings of files, huge pages,
 * several mappings side by side. When a session is set up, the whole block must be mapped and
 * readable, and writable on a destination. Otherwise the set-up fails on both sides, and the error
 * names the block and the range. A source may have a block read-only (a ROM). All blocks are looked
 * up once in /proc/self/smaps, or else maps. Without /proc nothing is checked.
 *
 * Memory that nobody has touched is neither read nor sent (option zero-detect). For private
 * anonymous memory the page table tells it. For shared memory the holes of its file tell it
 * (vmf_ram_blocks_add_shared()). Without /proc or smaps all memory counts as touched: it is read,
 * and zero pages are not sent.
 *
 * Memory may be registered with userfaultfd when the session is set up, and then stays so. It is
 * read like other memory: the threads of the channels wait for the handler. The handler must not
 * wait for the session. Missing pages of memory that is registered later may count as untouched.
 */
VMF_API const VmfRamBlock *vmf_ram_blocks_add(VmfRamBlocks *blocks, const char *name, void *host,
                                              uint64_t length, uint32_t page_size, GError **error);

/*
 * vmf_ram_blocks_add() for a MAP_SHARED mapping of `fd' at `fd_offset' bytes (memfd, hugetlbfs, a
 * file). `fd' stays the caller's, and open as long as the memory is mapped. The holes of the file
 * tell which memory was never written. Without the file a shared mapping is read in full. Holes
 * count on tmpfs (which memfd is) and on hugetlbfs alone. Other file systems may not know yet what
 * was written to the mapping. The mapping itself tells where the block lies in the file. A mapping
 * of another file, or with its pieces in another order, is read in full. lseek(2) moves the file
 * offset of `fd'.
 */
VMF_API const VmfRamBlock *vmf_ram_blocks_add_shared(VmfRamBlocks *blocks, const char *name,
                                                     void *host, uint64_t length,
                                                     uint32_t page_size, int fd, uint64_t fd_offset,
                                                     GError **error);

/*
 * Says that a source may have this block with a smaller length, as with QEMU's firmware tables. It
 * does nothing for a block of another set. Call it before the set is shared.
 */
VMF_API void vmf_ram_blocks_set_resizable(VmfRamBlocks *blocks, const VmfRamBlock *block);

/*
 * Says that a destination may give memory of the set back to the system (MADV_DONTNEED of
 * madvise(2)) where the source has none. So it may also make memory resident while it waits (option
 * populate). Until the session is freed, only vmferry may have pinned pages of the set's private
 * memory. So no device is assigned to the VM (VFIO, vDPA), and nothing else has registered the
 * memory. Shared memory is left alone. Call it before vmf_session_accept(). A source need not call
 * it.
 */
VMF_API void vmf_ram_blocks_set_discardable(VmfRamBlocks *blocks);

/*
 * Says that memory of a block was given back to the system, and reads as zero now. MADV_DONTNEED,
 * MADV_REMOVE and a hole punched in the file do that, as do balloons, free page reporting and
 * virtio-mem. An RDMA device that has registered the memory goes on with the old page frames, and
 * the guest gets others. Without this call, guest writes there are lost silently. With it, a range
 * that is saved after the call is registered anew first.
 *
 * Call it after the discard, and before the guest can use the range again: a device model calls it
 * before it answers the guest. A program that cannot call it must not discard while a session is
 * made or exists (QEMU: ram_block_uncoordinated_discard_disable()). A discard changes memory as a
 * write of the guest does: if the zeros matter, save the range again.
 *
 * On a source it neither waits nor stops writes that are under way. What they carry was saved
 * before, and is saved again if the guest writes there. On a destination a discard loses what the
 * source has sent. If a device has registered the range, the source may be writing to the old
 * frames. So the session fails then.
 *
 * `offset' and `length' are bytes; a range past the block's end is cut. `block' is one of the
 * set's. Any thread. Without a session it only reads a counter.
 */
VMF_API void vmf_ram_discarded(VmfRamBlocks *blocks, const VmfRamBlock *block, uint64_t offset,
                               uint64_t length);

/*
 * Says that blocks are added to the set after a session was made with it. vmf_session_name_ram()
 * says that the set is whole, and then it does not change any more. Until then the session has its
 * stream, and no RAM. Call it before the session is made.
 */
VMF_API void vmf_ram_blocks_set_late(VmfRamBlocks *blocks);
/*
 * Says that RAM of a late set will be among the private anonymous memory that forks do not inherit
 * (MADV_DONTFORK of madvise(2)), as QEMU's is. A listening destination makes that memory resident
 * while it waits (option populate), and gives back what the source has not. So what holds for
 * vmf_ram_blocks_set_discardable() holds for it, and the set allows discards from then on. Memory
 * that was reserved with MAP_NORESERVE is left as it is. Memory that is no RAM in the end stays
 * resident.
 *
 * It does nothing if this process has locked or pinned memory, because devices may be assigned to
 * the VM. Nor does it without /proc/self/smaps, see proc(5). Then the migration takes longer. Call
 * it before vmf_session_accept(). The memory must stay mapped until the set is freed. Returns the
 * number of bytes.
 */
VMF_API uint64_t vmf_ram_blocks_expect_unforked(VmfRamBlocks *blocks);
/*
 * vmf_ram_blocks_add() for a block of a late set on a source, whose memory is not known yet: `host'
 * is NULL. vmf_ram_blocks_set_host() says where it is, once, and before any of its bytes is saved
 * with vmf_save_ram_page(). With registration=pin-all that must be before vmf_session_name_ram().
 * Until then only vmf_save_zero_pages() can save something of it. Never touched memory of such a
 * block counts as touched.
 */
VMF_API const VmfRamBlock *vmf_ram_blocks_add_unplaced(VmfRamBlocks *blocks, const char *name,
                                                       uint64_t length, uint32_t page_size,
                                                       GError **error);
/*
 * Says where the memory of an unplaced block is, see vmf_ram_blocks_add() for what it must be.
 * Returns false with VMF_ERROR_INVALID if the block has memory already, is of another set, or the
 * memory is that of another block. The session's own thread.
 */
VMF_API bool vmf_ram_blocks_set_host(VmfRamBlocks *blocks, const VmfRamBlock *block, void *host,
                                     GError **error);

/*
 * For a destination that has no VM, and so no RAM to compare. Each block that only the source has
 * is added to the set, in memory that `allocate' returns: page aligned and zero, or NULL with
 * *error. The memory stays the caller's. `allocate' runs in the thread of vmf_session_accept(), or
 * in a thread of the session if the source is stock QEMU.
 */
typedef void *(*VmfRamAllocate)(void *opaque, const char *name, uint64_t length, GError **error);
VMF_API void vmf_ram_blocks_set_allocator(VmfRamBlocks *blocks, VmfRamAllocate allocate,
                                          void *opaque);

VMF_API unsigned vmf_ram_blocks_count(const VmfRamBlocks *blocks);
/* The set owns the block. NULL: there is no such index. */
VMF_API const VmfRamBlock *vmf_ram_blocks_get(const VmfRamBlocks *blocks, unsigned index);
/* The block of that name, or NULL. */
VMF_API const VmfRamBlock *vmf_ram_blocks_find(const VmfRamBlocks *blocks, const char *name);
VMF_API uint64_t vmf_ram_blocks_total(const VmfRamBlocks *blocks); /* bytes */

/*
 * Whether `size' bytes are all zero; any alignment and size. The first words tell most pages that
 * are not zero. A zero page is read at about memory bandwidth. Any thread. If the memory changes
 * during the call, the answer is for a mixture of moments.
 */
VMF_API bool vmf_is_zero(const void *memory, size_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmfRamBlocks, vmf_ram_blocks_unref)

G_END_DECLS

#endif
