# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# kernel.sh -- builds the User-Mode Linux kernel with soft-RoCE, once

KERNEL_ON="UML_PCI_OVER_VIRTIO VIRTIO_UML INFINIBAND INFINIBAND_USER_ACCESS INFINIBAND_USER_MAD
INFINIBAND_ADDR_TRANS RDMA_RXE RDMA_SIW CRYPTO_CRC32 CRYPTO_CRC32C VETH DUMMY HOSTFS NAMESPACES
NET_NS TMPFS DEVTMPFS USERFAULTFD MEMFD_CREATE PACKET INET IPV6 NET_UDP_TUNNEL UML_NET_VECTOR
NET_SCHED NET_SCH_NETEM NET_SCH_TBF HIGH_RES_TIMERS PROC_PAGE_MONITOR"
# Stacks in vmalloc space are unmapped for a moment while the kernel flushes that space's mappings; an
# interrupt just then copies from such a stack, and faults for ever.
KERNEL_OFF="BTRFS_FS SOUND REISERFS_FS DEBUG_INFO WERROR VMAP_STACK"
# The processor's whole extended state is saved on kernel stacks (see patch_processor_state), and
# soft-RoCE and the veth pair under it run deep within interrupts: 64 KiB.
KERNEL_STACK_ORDER=4

kernel_source() {
    ls -1 /usr/src/linux-source-6.1.tar.xz 2>/dev/null
}

# Changes with the recipe and with the source.
kernel_key() {
    { cat "$LAB_PARTS/kernel.sh" && dpkg-query -W -f '${Version}' linux-source-6.1; } |
        sha256sum | cut -c 1-16
}

# Linux 6.1's User-Mode Linux keeps room for 2,696 bytes of extended processor state and fails to
# start a process where the processor has more (AMX: 11,008 bytes).
patch_processor_state() {
    sed -i 's/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, 12288)/' \
        arch/x86/um/user-offsets.c
    grep -q 'HOST_FP_SIZE, 12288' arch/x86/um/user-offsets.c ||
        die "the kernel source has changed: HOST_FP_SIZE is not where it was"
}

# Soft-RoCE spends most of its time on each packet's checksum. A host has the processor's carry-less
# multiplication for that (crc32-pclmul); User-Mode Linux compiles this directory, too, but has no
# option for it, and asks for the processor's features by another function.
patch_checksum() {
    local checksum=arch/x86/crypto/crc32-pclmul_glue.c
    sed -i -e 's/x86_match_cpu(crc32pclmul_cpu_id)/boot_cpu_has(X86_FEATURE_PCLMULQDQ)/' \
        -e 's,<asm/cpufeatures.h>,<asm/cpufeature.h>,' $checksum
    grep -q 'boot_cpu_has(X86_FEATURE_PCLMULQDQ)' $checksum ||
        die "the kernel source has changed: $checksum is not what it was"
}

configure() {
    local option
    make -s ARCH=um defconfig >/dev/null
    for option in $KERNEL_ON; do scripts/config -e "$option"; done
    for option in $KERNEL_OFF; do scripts/config -d "$option"; done
    scripts/config --set-val KERNEL_STACK_ORDER $KERNEL_STACK_ORDER
    make -s ARCH=um olddefconfig >/dev/null
    ! grep -q '^CONFIG_VMAP_STACK=y' .config || die "the kernel cannot be configured without VMAP_STACK"
    for option in $KERNEL_ON; do
        # Some have been folded into others in later versions; those that matter are checked.
        case $option in NAMESPACES | CRYPTO_CRC32 | NET_UDP_TUNNEL | VIRTIO_UML) continue ;; esac
        grep -qE "^CONFIG_$option=[ym]" .config || die "the kernel cannot be configured with $option"
    done
}

# A line every few seconds, so that nobody thinks that it hangs.
compile() {
    local log=$1 status=0
    make ARCH=um -j"$(nproc)" CONFIG_CRYPTO_CRC32_PCLMUL=y linux >"$log" 2>&1 &
    local builder=$!
    while kill -0 $builder 2>/dev/null; do
        sleep 5
        if [ -t 2 ]; then
            printf '\rlab: building the kernel: %s objects (of about 1030) ' "$(grep -c ' CC ' "$log")" >&2
        elif [ $((SECONDS % 30)) -lt 5 ]; then
            say "building the kernel: $(grep -c ' CC ' "$log") objects (of about 1030)"
        fi
    done
    [ -t 2 ] && echo >&2
    wait $builder || status=$?
    [ $status = 0 ] || { tail -20 "$log" >&2 && die "the kernel does not build; the whole log: $log"; }
}

build_kernel() {
    local kernel=$1 work
    say "building the lab's kernel, once; this takes some minutes"
    work=$(mktemp -d "$LAB_CACHE/build.XXXXXX")
    (
        cd "$work"
        tar xf "$(kernel_source)"
        cd linux-source-6.1
        patch_processor_state
        patch_checksum
        configure
        compile "$LAB_CACHE/build.log"
        strip -o linux.stripped linux
        mv linux.stripped "$kernel.new"
        mv "$kernel.new" "$kernel"
    )
    rm -rf "$work"
    say "kernel ready: $kernel"
}

# Sets KERNEL; builds it when it is not there.
lab_kernel() {
    if [ -n "${VMFERRY_LAB_KERNEL:-}" ]; then
        KERNEL=$VMFERRY_LAB_KERNEL
        return
    fi
    mkdir -p "$LAB_CACHE"
    [ -n "$(kernel_source)" ] || "$LAB_TOOLS/deps" lab
    KERNEL=$LAB_CACHE/linux-$(kernel_key)
    [ -x "$KERNEL" ] && return
    # Two callers at once: the second waits for the first.
    exec 9>"$LAB_CACHE/lock"
    flock 9
    [ -x "$KERNEL" ] || build_kernel "$KERNEL"
    exec 9>&-
}
