#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-vm.sh -- sessions on real queue pairs under the sanitizers, on a kernel with two CPUs
#
# lab-vm.sh WORK address|thread: WORK is the folder with the builds of those names. It boots one machine, in
# which it runs itself (--inside) for all of a sanitizer's tests.
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
INSIDE=
if [ "${1:-}" = --inside ]; then INSIDE=1 && shift; fi
WORK=${1:?the folder with the builds "address" and "thread"}
SANITIZER=${2:?address or thread}
export VMFERRY_PLUGIN_PATH=$WORK/$SANITIZER/rdma

if [ -z "$INSIDE" ]; then
    "$HERE/../../tools/lab" exec --lab=vm --mem 3G --timeout 1100 -- "$HERE/lab-vm.sh" --inside "$WORK" "$SANITIZER"
    exit
fi

# The emulated CPUs are slow, so time-outs are long, and the large stream test runs elsewhere.
suite() {
    VMFERRY_TEST_FILTER=$2 VMFERRY_TEST_URI=rdma:$LAB_ADDR:0 \
        timeout 400 "$WORK/$SANITIZER/tests/session/$1"
}

# A whole migration by stock QEMU's protocol, with vmferry on either side.
stock_protocol() {
    VMFERRY_BUILD=$WORK/$SANITIZER VMFERRY_TEST_ONLY='small guest|larger' timeout 400 "$HERE/lab-v1.sh"
}

two_cpus() {
    rdma link | grep "link rxe0" && [ "$(nproc)" = 2 ]
}

# Starts a rootless container, which the kernel refuses in a chroot.
user_namespaces() {
    unshare --user --map-root-user true
}

check "two CPUs and a soft-RoCE device" two_cpus
check "user namespaces" user_namespaces
case $SANITIZER in
address)
    # Memory that libraries keep until the end is not our leak. Leaks that the address sanitizer finds are.
    export ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$HERE/../support/lsan.supp
    named="address and undefined-behaviour sanitizers"
    ;;
thread)
    # libibverbs is not instrumented: the sanitizer sees it unlock its mutexes, and not lock them.
    export TSAN_OPTIONS="suppressions=$HERE/../support/tsan.supp halt_on_error=1 report_mutex_bugs=0"
    named="thread sanitizer"
    check "stream and RAM, $named" suite test-session 'stream__never*'
    ;;
esac
check "RAM tests, $named" suite test-session 'ram__*'
check "device state that arrives, $named" suite test-devices 'devices__a*'
check "device state with every bound at 1, $named" suite test-devices 'devices__w*'
check "failures, $named" suite test-session-failures 'peer__*'
check "cancelling, $named" suite test-session-failures 'cancel__*'
check "stock QEMU's protocol, $named" stock_protocol
finish
