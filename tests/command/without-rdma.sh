#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# without-rdma.sh -- library and command without rdma-core, and installed trees used from outside
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
WORK=${1:?a folder for builds}
BUILD=$WORK/no-rdma
PREFIX=$WORK/prefix
# A whole tree, with what starts an unpatched QEMU.
WITH=$WORK/with-rdma
WITH_PREFIX=$WORK/prefix-rdma
MOVED=$WORK/prefix-moved

build_without() {
    rm -rf "$BUILD" # it may belong to another checkout
    meson setup "$BUILD" "$HERE/../.." -Drdma=disabled -Dtests=disabled --prefix "$PREFIX" --libdir lib || return 1
    ninja -C "$BUILD" && rm -rf "$PREFIX" && meson install -C "$BUILD" --no-rebuild
}

links_no_rdma() {
    ! ldd "$1" | grep -E 'ibverbs|rdmacm'
}

installed() {
    LD_LIBRARY_PATH=$PREFIX/lib "$PREFIX/bin/vmferry" "$@"
}

transfers() {
    local status=0 listener
    rm -f "$WORK/listener"
    LD_LIBRARY_PATH=$PREFIX/lib "$PREFIX/bin/vmferry" bench --listen "unix:$WORK/socket" --once >"$WORK/listener" 2>&1 &
    listener=$!
    await_listening "$WORK/listener" || status=1
    installed bench "unix:$WORK/socket" --ram 8M --verify || status=$?
    wait $listener || status=$?
    return $status
}

# --- an unpatched QEMU ---

build_with() {
    rm -rf "$WITH"
    meson setup "$WITH" "$HERE/../.." -Drdma=enabled -Dtests=disabled -Dqemu_links=qemu-system-x86_64,qemu-kvm \
        --prefix "$WITH_PREFIX" || return 1
    ninja -C "$WITH" && rm -rf "$WITH_PREFIX" && meson install -C "$WITH" --no-rebuild
}

# A program that is linked as QEMU is, which names the library that it has.
build_fake() {
    # shellcheck disable=SC2046
    cc -DFAKE_GLIB -DFAKE_RDMACM "$HERE/../preload/fake-qemu.c" -o "$WORK/qemu-kvm" \
        $(pkg-config --cflags --libs glib-2.0 librdmacm libibverbs)
}

# has_library PREFIX COMMAND...: its process has the library of that prefix, and it has its engine.
has_library() {
    local prefix=$1 library
    shift
    library=$(env -u VMFERRY_PLUGIN_PATH -u LD_LIBRARY_PATH PATH="$WORK:$PATH" "$@" | sed -n 's/^has \(.*qemu.so\)$/\1/p')
    echo "$library"
    case $library in "$(readlink -f "$prefix")"/*/libvmferry-qemu.so) ;; *) return 1 ;; esac
    ! ldd "${library%.so}-engine.so" | grep 'not found'
}

moved() {
    rm -rf "$MOVED" && cp -a "$WITH_PREFIX" "$MOVED" && has_library "$MOVED" "$MOVED/bin/vmferry-qemu" qemu-kvm
}

# Only the command is elsewhere, such as a copy in a container.
copied() {
    mkdir -p "$WORK/copied" && cp "$WITH_PREFIX/bin/vmferry-qemu" "$WORK/copied" &&
        has_library "$WITH_PREFIX" "$WORK/copied/vmferry-qemu" qemu-kvm
}

manual() {
    [ -s "$WITH_PREFIX/share/man/man1/vmferry-qemu.1" ]
}

no_wrapper() {
    ! ls "$PREFIX"/bin/*qemu* "$PREFIX"/share/man/man1/vmferry-qemu.1 2>/dev/null
}

# --- examples ---

# The example of README.md, as a user of the library builds it.
example() {
    # shellcheck disable=SC2046
    PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig cc -Wall -Wextra -Werror "$HERE/../../examples/example.c" -o "$WORK/example" \
        $(PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig pkg-config --cflags --libs vmferry) || return 1
    local status=0 receiver
    LD_LIBRARY_PATH=$PREFIX/lib "$WORK/example" receive tcp:127.0.0.1:5799 &
    receiver=$!
    await_port 5799 || status=1
    LD_LIBRARY_PATH=$PREFIX/lib "$WORK/example" send tcp:127.0.0.1:5799 || status=$?
    wait $receiver || status=$?
    return $status
}

# A small but whole VMM, by installed headers and pkg-config alone.
vmm() {
    # shellcheck disable=SC2046
    PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig cc -Wall -Wextra -Werror "$HERE"/../../examples/vmm/*.c -o "$WORK/vmm" \
        $(PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig pkg-config --cflags --libs vmferry) || return 1
    local status=0 receiver
    LD_LIBRARY_PATH=$PREFIX/lib "$WORK/vmm" receive tcp:127.0.0.1:5798 &
    receiver=$!
    await_port 5798 || status=1
    LD_LIBRARY_PATH=$PREFIX/lib "$WORK/vmm" send tcp:127.0.0.1:5798,channels=4 || status=$?
    wait $receiver || status=$?
    return $status
}

example_is_in_readme() {
    local readme
    # shellcheck disable=SC2016
    readme=$(sed -n '/^```c$/,/^```$/p' "$HERE/../../README.md" | grep -v '^```')
    # The file's head says what it is. README.md has the rest word for word.
    diff <(sed '1,/^$/d' "$HERE/../../examples/example.c" | sed '/./,$!d') <(echo "$readme")
}

check "builds and installs without rdma-core" build_without
check "the library links no rdma-core" links_no_rdma "$PREFIX/lib/libvmferry.so"
check "the command links no rdma-core" links_no_rdma "$PREFIX/bin/vmferry"
check "without the plugin, rdma: names the package" \
    fails_saying 'install the package vmferry-rdma' installed bench rdma:127.0.0.1:1
check "an unknown scheme is refused" fails_saying 'no transport for xyz:' installed bench xyz:a:1
check "a wrong option lists the right ones" \
    fails_saying 'max-inflight' installed bench tcp:127.0.0.1:1,chanels=4
check "transports are listed" installed transports
check "the installed command migrates" transfers
check "the README's example compiles against the installed library and runs" example
check "a minimal VMM compiles against the installed library, and its VM moves, running" vmm
check "the example in the README is the one that was compiled" example_is_in_readme
check "without rdma-core nothing starts a QEMU" no_wrapper
check "builds and installs with rdma-core" build_with
check "a program that is linked as QEMU is" build_fake
check "the installed vmferry-qemu starts a QEMU with the installed library" has_library "$WITH_PREFIX" "$WITH_PREFIX/bin/vmferry-qemu" qemu-kvm
check "so does the link that is named after it" has_library "$WITH_PREFIX" "$WITH_PREFIX/bin/qemu-kvm-vmferry"
check "so does a prefix that was moved" moved
check "so does a copy of the command" copied
check "its manual page is installed" manual
finish
