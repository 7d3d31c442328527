#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# vmferry-qemu.sh -- what vmferry-qemu starts, how, and what it refuses to start
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=$(cd "${VMFERRY_BUILD:?a build}" && pwd -P)
WRAPPER=$BUILD/tools/vmferry-qemu
LIBRARY=$BUILD/rdma/preload/libvmferry-qemu.so
FAKES=$BUILD/tests/preload
WORK=$(mktemp -d "${TMPDIR:-/tmp}/vmferry-wrapper.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
chmod 755 . # for other users
unset LD_PRELOAD VMFERRY_PLUGIN_PATH VMFERRY_QEMU_LIBRARY VMFERRY_QEMU_ENGINE
# A sanitizer wants to be loaded first, and neither it nor its leaks matter here.
export ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0
NOBODY=65534

# --- starting ---

# started OUTPUT: it has the library, and its children have not.
started() {
    cat "$1"
    grep -qxF "has $LIBRARY" "$1" && ! grep '^child .*libvmferry-qemu.so' "$1"
}

starts() {
    "$WRAPPER" "$FAKES/fake-qemu" >out && started out && ! grep '^child LD_PRELOAD' out
}

keeps_arguments() {
    printf 'argument <%s>\n' "$FAKES/fake-qemu" 'a  b' '' '"' "it's \$HOME *" -h --help $'two\nlines' >expected
    "$WRAPPER" "$FAKES/fake-qemu" 'a  b' '' '"' "it's \$HOME *" -h --help $'two\nlines' >out || return 1
    sed -n '/^argument/,/^has/p' out | grep -v '^has' | diff expected -
}

keeps_the_pid() {
    bash -c 'echo "pid $$"; exec "$@"' - "$WRAPPER" "$FAKES/fake-qemu" >out || return 1
    [ "$(grep -c '^pid' out)" = 2 ] && [ "$(grep '^pid' out | sort -u | wc -l)" = 1 ]
}

keeps_other_libraries() {
    LD_PRELOAD=libm.so.6 "$WRAPPER" "$FAKES/fake-qemu" >out || return 1
    started out && grep -q '^has .*/libm.so.6$' out && grep -qxF 'child LD_PRELOAD=libm.so.6' out
}

keeps_the_environment() {
    VMFERRY_QEMU_OPTIONS=channels=8 "$WRAPPER" "$FAKES/fake-qemu" >out
    grep -qx 'child VMFERRY_QEMU_OPTIONS=channels=8' out
}

finds_the_plugin_of_a_build() {
    "$WRAPPER" "$FAKES/fake-qemu" >out && grep -qxF "plugins $BUILD/rdma" out || return 1
    VMFERRY_PLUGIN_PATH=/mine "$WRAPPER" "$FAKES/fake-qemu" >out && grep -qx "plugins /mine" out
}

looks_in_path() {
    PATH=/nowhere:$FAKES:$PATH "$WRAPPER" fake-qemu >out && started out && grep -qx 'argument <fake-qemu>' out
}

starts_a_script() {
    printf '#!/bin/sh\nexec %s "$@"\n' "$FAKES/fake-qemu" >script
    chmod 755 script
    "$WRAPPER" ./script x >out && started out && grep -qx 'argument <x>' out
}

# --- by a link ---

by_a_link() {
    mkdir -p links && ln -sf "$WRAPPER" links/fake-qemu-vmferry
    PATH=$FAKES:$PATH links/fake-qemu-vmferry --help >out && started out && grep -qx 'argument <--help>' out || return 1
    PATH=$WORK/links:$FAKES:$PATH fake-qemu-vmferry >out && started out && grep -qxF "argument <$FAKES/fake-qemu>" out
}

not_itself() {
    mkdir -p first && ln -sf "$WRAPPER" first/fake-qemu && ln -sf "$WRAPPER" first/fake-qemu-vmferry
    PATH=$WORK/first:$FAKES:$PATH first/fake-qemu-vmferry >out && started out
}

# refuses STATUS PATTERN COMMAND...: on standard error, as one line, before anything is started.
refuses() {
    local wanted=$1 pattern=$2 status
    shift 2
    "$@" >out 2>err
    status=$?
    cat out err
    [ $status = "$wanted" ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -qE "^vmferry: .*$pattern" err
}

link_without_path() {
    mkdir -p links && ln -sf "$WRAPPER" links/true-vmferry
    PATH=/nowhere refuses_here 126 '/usr/bin/true is no QEMU with RDMA migration' links/true-vmferry
}

# refuses(), where the changed PATH must not reach the tools of this script.
refuses_here() {
    local path=$PATH
    PATH=/usr/bin:/bin
    refuses "$1" "$2" env PATH="$path" "${@:3}"
}

link_to_nothing() {
    mkdir -p links && ln -sf "$WRAPPER" links/no-such-qemu-vmferry
    refuses 127 'cannot find no-such-qemu in .*/usr/libexec' links/no-such-qemu-vmferry
}

# --- files that are no QEMU ---

broken_files() {
    local at
    : >broken && chmod 755 broken
    refuses 126 'neither a program nor a script' "$WRAPPER" ./broken || return 1
    echo "echo hello" >broken
    refuses 126 'neither a program nor a script' "$WRAPPER" ./broken || return 1
    for at in 3 16 40 63 64 100 400 700 1000 2000 4096; do
        head -c "$at" "$FAKES/fake-qemu" >broken
        refuses 126 broken "$WRAPPER" ./broken || return 1
    done
}

# other_byte OFFSET PATTERN: a QEMU with another byte there.
other_byte() {
    cp "$FAKES/fake-qemu" other && printf '\1' | dd of=other bs=1 seek="$1" conv=notrunc status=none
    refuses 126 "$2" "$WRAPPER" ./other
}

not_executable() {
    cp "$FAKES/fake-qemu" plain && chmod 644 plain
    refuses 126 'may not be executed' "$WRAPPER" ./plain &&
        PATH=$WORK:$PATH refuses 126 'plain may not be executed' "$WRAPPER" plain
}

# --- files with more rights than their user's ---

as_nobody() {
    setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups "$@"
}

with_rights() { # CHOWN CHMOD PATTERN
    rm -f rights && cp "$FAKES/fake-qemu" rights && chown "$1" rights && chmod "$2" rights || return 1
    refuses 126 "$3" "$WRAPPER" ./rights || return 1
    # Where the kernel does not give the rights, there is no reason to refuse.
    setpriv --no-new-privs "$WRAPPER" ./rights >out && started out
}

own_rights() {
    rm -f rights && cp "$FAKES/fake-qemu" rights && chmod 6755 rights && "$WRAPPER" ./rights >out && started out
}

with_capabilities() {
    rm -f rights && cp "$FAKES/fake-qemu" rights && setcap cap_net_raw+ep rights || return 1
    cp "$WRAPPER" "$LIBRARY" "$BUILD/rdma/preload/libvmferry-qemu-engine.so" . # where nobody can read them
    export VMFERRY_QEMU_LIBRARY=$WORK/libvmferry-qemu.so
    refuses 126 'file capabilities' as_nobody ./vmferry-qemu ./rights &&
        ./vmferry-qemu ./rights >out && grep -qxF "has $WORK/libvmferry-qemu.so" out
}

# --- the library ---

with_library() { # PATH PATTERN
    VMFERRY_QEMU_LIBRARY=$1 refuses 126 "$2" "$WRAPPER" "$FAKES/fake-qemu"
}

folder_with_a_blank() {
    mkdir -p 'a b' && cp "$LIBRARY" "$BUILD/rdma/preload/libvmferry-qemu-engine.so" 'a b'
    with_library "$WORK/a b/libvmferry-qemu.so" 'a blank or a colon'
}

without_engine() {
    mkdir -p alone && cp "$LIBRARY" alone
    with_library "$WORK/alone/libvmferry-qemu.so" 'cannot read .*/alone/libvmferry-qemu-engine.so'
}

not_installed() {
    mkdir -p elsewhere/bin && cp "$WRAPPER" elsewhere/bin
    refuses 126 'cannot find libvmferry-qemu.so in .*VMFERRY_QEMU_LIBRARY' elsewhere/bin/vmferry-qemu "$FAKES/fake-qemu"
}

# --- the command line ---

prints() { # PATTERN OPTION
    "$WRAPPER" "$2" >out 2>err && grep -q "$1" out && [ ! -s err ]
}

check "--help prints how it is used" prints '^usage: vmferry-qemu QEMU' --help
check "--version prints the version" prints '^vmferry-qemu [0-9]' --version
check "no QEMU is wrong usage" refuses 2 'is missing' "$WRAPPER"
check "an unknown option is wrong usage" refuses 2 'unknown option --foo' "$WRAPPER" --foo
check "a QEMU gets the library, and its children do not" starts
check "every argument arrives as it is" keeps_arguments
check "the process keeps its number" keeps_the_pid
check "other preloaded libraries stay, for its children too" keeps_other_libraries
check "the environment stays" keeps_the_environment
check "a build's own plugin is found, unless another is named" finds_the_plugin_of_a_build
check "a name is looked up in PATH" looks_in_path
check "a script's QEMU gets the library" starts_a_script
check "a link starts the QEMU that it is named after" by_a_link
check "a link does not start itself" not_itself
check "a link finds QEMU without PATH" link_without_path
check "a link to no QEMU says so" link_to_nothing
check "a QEMU that is not there is named" refuses 127 'cannot find no-such-qemu in ' "$WRAPPER" no-such-qemu
check "a path that is not there is named" refuses 127 'cannot find ./no/such: No such file' "$WRAPPER" ./no/such
check "a folder is refused" refuses 126 '/ is no program' "$WRAPPER" /
check "a file that may not be executed is refused" not_executable
check "vmferry-qemu does not start itself" refuses 126 'vmferry-qemu itself' "$WRAPPER" "$WRAPPER"
check "a QEMU without RDMA is refused" refuses 126 'does not need librdmacm' "$WRAPPER" "$FAKES/fake-no-rdma"
check "a program that only uses librdmacm is refused" refuses 126 'does not need GLib' "$WRAPPER" "$FAKES/fake-no-glib"
check "a static QEMU is refused" refuses 126 'linked statically' "$WRAPPER" "$FAKES/fake-static"
check "a program with vmferry in it is refused" refuses 126 'has vmferry in it already' "$WRAPPER" "$BUILD/tools/vmferry"
check "a library is refused" refuses 126 'neither a program' "$WRAPPER" "$LIBRARY"
check "broken files are refused" broken_files
check "a program of another class is refused" other_byte 4 'another machine'
check "a program for another machine is refused" other_byte 18 'another machine'
check "a library that is not there is named" with_library /no/such.so 'cannot find /no/such.so, which VMFERRY_QEMU_LIBRARY'
check "a library that is a program is refused" with_library "$FAKES/fake-qemu" 'no library for this machine'
check "a folder that LD_PRELOAD cannot have is refused" folder_with_a_blank
check "a library without its engine is refused" without_engine
if [ -e /usr/local/lib/vmferry ] || ls /usr/local/lib/*/vmferry >/dev/null 2>&1; then
    skip "without a library it says what to install" "one is installed"
else
    check "without a library it says what to install" not_installed
fi
if [ "$(id -u)" != 0 ]; then
    skip "QEMUs with more rights than their user's" "only root can make them"
elif findmnt -no OPTIONS -T . | grep -q nosuid; then
    skip "QEMUs with more rights than their user's" "they have none in $WORK"
else
    check "a set-user-id QEMU is refused" with_rights $NOBODY:0 4755 'set-user-id'
    check "a set-group-id QEMU is refused" with_rights 0:$NOBODY 2755 'set-group-id'
    check "set-id bits that change nothing do no harm" own_rights
    check "a QEMU with file capabilities is refused, unless they change nothing" with_capabilities
fi
finish
