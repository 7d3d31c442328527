# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# kernel.sh -- builds the User-Mode Linux kernel with soft-RoCE, once

KERNEL_ON="UML_PCI_OVER_VIRTIO VIRTIO_UML INFINIBAND INFINIBAND_USER_ACCESS INFINIBAND_USER_MAD
INFINIBAND_ADDR_TRANS RDMA_RXE RDMA_SIW CRYPTO_CRC32 CRYPTO_CRC32C VETH DUMMY HOSTFS NAMESPACES
NET_NS USER_NS PID_NS CGROUP_PIDS TMPFS DEVTMPFS USERFAULTFD MEMFD_CREATE PACKET INET IPV6 NET_UDP_TUNNEL
UML_NET_VECTOR NET_SCHED NET_SCH_NETEM NET_SCH_TBF HIGH_RES_TIMERS PROC_PAGE_MONITOR EXPERT IO_URING
DEBUG_INFO_NONE SECCOMP SECCOMP_FILTER"
# Stacks in vmalloc space are unmapped for a moment while the kernel flushes that space's mappings; an
# interrupt just then copies from such a stack, and faults for ever.
KERNEL_NEVER="VMAP_STACK BLOCK DEBUG_INFO MODULES"
# Options of the architecture's default configuration that no lab host needs: they make the build half as
# long again. User-Mode Linux has no huge pages of hugetlbfs; --lab=vm has.
KERNEL_OFF="$KERNEL_NEVER BTRFS_FS REISERFS_FS EXT4_FS QUOTA SOUND INPUT SERIO HID HID_SUPPORT USB_SUPPORT
INPUT_KEYBOARD INPUT_MOUSE HWMON WIRELESS WLAN ETHERNET UML_NET_ETHERTAP UML_NET_TUNTAP UML_NET_SLIP
UML_NET_DAEMON UML_NET_MCAST UML_NET_SLIRP TUN PPP SLIP IKCONFIG SUSPEND FTRACE PCI_QUIRKS VGA_ARB PCIEASPM
PTP_1588_CLOCK PPS FW_LOADER LEGACY_PTYS SSL XTERM_CHAN PORT_CHAN TTY_CHAN BSD_PROCESS_ACCT POSIX_MQUEUE
IPV6_SIT INET_DIAG ETHTOOL_NETLINK PROC_KCORE BLK_CGROUP MISC_FILESYSTEMS NETWORK_FILESYSTEMS AUTOFS4_FS
AUTOFS_FS BINFMT_MISC NLS RUNTIME_TESTING_MENU DEVPORT SYSFS_DEPRECATED VIRTIO_MENU VHOST_MENU CRYPTO_HW
NVMEM DNOTIFY WERROR DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT"
# Source that such a kernel does not need is not unpacked, except Kconfig files and makefiles.
KERNEL_UNUSED="*/arch/[a-tv-wyz]*/*.[chS] */arch/*/*.dts* */drivers/gpu/*.[ch] */drivers/net/ethernet/*.[ch]
*/drivers/net/wireless/*.[ch] */drivers/media/*.[ch] */drivers/staging/*.[ch] */sound/*.[ch]
*/tools/perf/*.[ch] */tools/testing/*.[ch]"
# The processor's whole extended state is saved on kernel stacks (see patch_processor_state), and
# soft-RoCE and the veth pair under it run deep within interrupts: 64 KiB.
KERNEL_STACK_ORDER=4

kernel_source() {
    ls -1 /usr/src/linux-source-6.1.tar.xz 2>/dev/null
}

# The key changes with the recipe and with the source.
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

# User-Mode Linux loses interrupts of its descriptors in two ways, after which a host waits for the next
# one: for a line on its console, or a packet, that is there already.
# - The events that one epoll_wait() gives are walked in an array that a nested interrupt's own overwrites,
#   and each is given once only: so one at a time.
# - A signal that comes after the idle task has looked for work and before it sleeps wakes nobody until
#   the next timer, which may be seconds away: so it is held back until the sleep begins.
patch_interrupts() {
    local part=arch/um/os-Linux
    sed -i 's/^#define MAX_EPOLL_EVENTS 64$/#define MAX_EPOLL_EVENTS 1/' $part/irq.c
    sed -i 's/^static unsigned int signals_pending;$/unsigned int signals_pending;/' $part/signal.c
    sed -i -e 's/^void os_idle_sleep(void)$/extern unsigned int signals_pending;\n\n&/' \
        -e 's/^\tsigaddset(&set, SIGALRM);$/&\n\tsigaddset(\&set, SIGIO);/' \
        -e 's/if (its.it_value.tv_sec || its.it_value.tv_nsec)/if (!signals_pending \&\& (its.it_value.tv_sec || its.it_value.tv_nsec))/' \
        $part/time.c
    if ! grep -q 'MAX_EPOLL_EVENTS 1$' $part/irq.c || ! grep -q '^unsigned int signals_pending' $part/signal.c ||
        [ "$(grep -cE 'sigaddset.*SIGIO|signals_pending' $part/time.c)" != 3 ]; then
        die "the kernel source has changed: $part is not what it was"
    fi
}

configure() {
    local option
    make -s ARCH=um defconfig >/dev/null
    {
        # shellcheck disable=SC2086
        printf 'CONFIG_%s=y\n' $KERNEL_ON
        # shellcheck disable=SC2086
        printf '# CONFIG_%s is not set\n' $KERNEL_OFF
        echo "CONFIG_KERNEL_STACK_ORDER=$KERNEL_STACK_ORDER"
    } >>.config
    make -s ARCH=um olddefconfig >/dev/null 2>"$LAB_CACHE/configure.log" # "reassigning", for each
    for option in $KERNEL_NEVER; do
        ! grep -q "^CONFIG_$option=y" .config || die "the kernel cannot be configured without $option"
    done
    for option in $KERNEL_ON; do
        # Later versions have merged some options into others. The options that matter are checked.
        case $option in NAMESPACES | CRYPTO_CRC32 | NET_UDP_TUNNEL | VIRTIO_UML) continue ;; esac
        grep -qE "^CONFIG_$option=[ym]" .config || die "the kernel cannot be configured with $option"
    done
}

# Prints a line every few seconds, so that nobody thinks that it hangs.
compile() {
    local log=$1 status=0
    make ARCH=um -j"$(nproc)" CONFIG_CRYPTO_CRC32_PCLMUL=y linux >"$log" 2>&1 &
    local builder=$!
    while kill -0 $builder 2>/dev/null; do
        sleep 5
        if [ -t 2 ]; then
            printf '\rlab: building the kernel: %s objects (of about 820) ' "$(grep -c ' CC ' "$log")" >&2
        elif [ $((SECONDS % 30)) -lt 5 ]; then
            say "building the kernel: $(grep -c ' CC ' "$log") objects (of about 820)"
        fi
    done
    [ -t 2 ] && echo >&2
    wait $builder || status=$?
    [ $status = 0 ] || { tail -20 "$log" >&2 && die "the kernel does not build; the whole log: $log"; }
}

unpack_kernel() {
    local pattern unused=()
    set -f # the patterns are tar's
    for pattern in $KERNEL_UNUSED; do unused+=("--exclude=$pattern"); done
    set +f
    tar xf "$(kernel_source)" "${unused[@]}"
}

build_kernel() {
    local kernel=$1 work
    say "building the lab's kernel, once; this takes some minutes"
    rm -rf "$LAB_CACHE"/build.?????? # left by builds that were ended
    work=$(mktemp -d "$LAB_CACHE/build.XXXXXX")
    (
        cd "$work" || exit
        unpack_kernel
        cd linux-source-6.1 || exit
        patch_processor_state
        patch_checksum
        patch_interrupts
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
