# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# vm.sh -- the second way: Debian's own kernel under QEMU, two CPUs, no acceleration; one host

VM_BOOT_SECONDS=180
VM_MODULES="crc32_generic 9p 9pnet_virtio virtio_pci rdma_rxe ib_uverbs rdma_ucm veth"

# Fetches Debian's kernel package without installing it; sets VMLINUZ and VM_ROOT.
vm_kernel() {
    local package version
    "$LAB_TOOLS/deps" lab-vm
    mkdir -p "$LAB_CACHE"
    exec 9>"$LAB_CACHE/lock"
    flock 9
    apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update >/dev/null
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1)
    [ -n "$package" ] || die "no linux-image package is known here"
    VM_ROOT=$LAB_CACHE/$package
    if [ ! -d "$VM_ROOT" ]; then
        say "fetching $package (not installed on this machine, only unpacked)"
        (
            cd "$LAB_CACHE" || exit
            rm -rf fetch && mkdir fetch && cd fetch || exit
            apt-get download "$package" >/dev/null 2>&1 || die "cannot download $package"
            dpkg -x ./*.deb root
            version=$(ls root/lib/modules)
            depmod -b root "$version"
            mv root "$VM_ROOT"
        )
        rm -rf "$LAB_CACHE/fetch"
    fi
    exec 9>&-
    VM_VERSION=$(ls "$VM_ROOT/lib/modules")
    VMLINUZ=$VM_ROOT/boot/vmlinuz-$VM_VERSION
}

# The modules in the order in which they are to be loaded.
vm_module_files() {
    local module
    for module in $VM_MODULES; do
        modprobe -d "$VM_ROOT" -S "$VM_VERSION" --show-depends "$module" 2>/dev/null |
            sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++'
}

vm_initramfs() {
    local root=$1/initramfs file
    mkdir -p "$root"/{bin,modules,proc,sys,dev,mnt,run}
    cp "$(command -v busybox)" "$root/bin/busybox"
    : >"$root/modules/order"
    vm_module_files | while read -r file; do
        cp "$file" "$root/modules/"
        basename "$file" >>"$root/modules/order"
    done
    cp "$LAB_PARTS/vm-init.sh" "$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$1/initrd.gz"
}

lab_exec() {
    local work qemu deadline status path
    [ "$HOSTS" = 1 ] || die "--lab=vm has one host"
    vm_kernel
    work=$(mktemp -d /var/tmp/vmferry-vm-XXXXXX)
    mkdir -p "$work/out"
    vm_initramfs "$work"
    kept_of_tmp "${REST[@]}" | while read -r path; do [ ! -d "$path" ] || [ -L "$path" ] || echo "$path"; done >"$work/out/kept"
    {
        env | grep -E '^(VMFERRY|G_|ASAN|UBSAN|TSAN|LSAN)[A-Z_]*=' | sed 's/^/export /; s/=\(.*\)/="\1"/' || true
        echo "cd $(quoted "$PWD")"
        echo "exec $(quoted "${REST[@]}")"
    } >"$work/out/command"
    qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$MEM" -nographic -no-reboot \
        -kernel "$VMLINUZ" -initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1" \
        -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=root,mount_tag=root \
        -fsdev local,id=out,path="$work/out",security_model=none \
        -device virtio-9p-pci,fsdev=out,mount_tag=out -nic none \
        </dev/null >"$work/console" 2>&1 &
    qemu=$!
    # shellcheck disable=SC2064
    trap "kill -KILL $qemu 2>/dev/null || true; rm -rf '$work'" EXIT
    trap 'exit 130' INT TERM
    deadline=$((SECONDS + TIMEOUT + VM_BOOT_SECONDS))
    SHOWN=0
    while kill -0 $qemu 2>/dev/null; do
        sleep 0.5
        vm_show "$work/out/output"
        [ $SECONDS -lt $deadline ] || { say "the virtual machine takes longer than $TIMEOUT s: ${REST[*]}" && return 124; }
        if [ $((deadline - SECONDS)) -lt "$TIMEOUT" ] && [ ! -e "$work/out/up" ]; then
            tail -20 "$work/console" >&2
            die "the virtual machine did not boot within $VM_BOOT_SECONDS s"
        fi
    done
    vm_show "$work/out/output"
    [ -e "$work/out/rc" ] || { tail -20 "$work/console" >&2 && die "the virtual machine died"; }
    status=$(cat "$work/out/rc")
    check_log "$work/out/dmesg" "the virtual machine" || status=1
    return "$status"
}

vm_show() {
    local size
    size=$(stat -c %s "$1" 2>/dev/null || echo 0)
    if [ "$size" -gt "$SHOWN" ]; then
        tail -c +$((SHOWN + 1)) "$1" | head -c $((size - SHOWN))
        SHOWN=$size
    fi
}
