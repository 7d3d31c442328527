#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-vm.sh -- sessions on real queue pairs under the sanitizers, on a kernel with two CPUs
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/checks.sh
. "$HERE/checks.sh"
WORK=${1:?the folder with the builds "address" and "thread"}
LAB=$HERE/../tools/lab

# The emulated CPUs are slow: time-outs are long, and the large stream test is left to others.
suite() {
    local build=$1 program=$2 filter=$3
    VMFERRY_TEST_FILTER=$filter "$LAB" exec --lab=vm --mem 3G --timeout 400 -- \
        env VMFERRY_TEST_URI=rdma:10.77.0.1:0 VMFERRY_TEST_SLOW=1 "$WORK/$build/tests/$program"
}

# A whole migration by stock QEMU's protocol, with vmferry on either side.
stock_protocol() {
    local build=$1
    "$LAB" exec --lab=vm --mem 3G --timeout 400 -- env VMFERRY_BUILD="$WORK/$build" VMFERRY_TEST_ONLY='small guest|larger' "$HERE/lab-v1.sh"
}

check "two CPUs and a soft-RoCE device" \
    "$LAB" exec --lab=vm --timeout 60 -- bash -c 'rdma link | grep "link rxe0" && [ "$(nproc)" = 2 ]'
# A leak that libraries keep to the end is no leak of ours; the address sanitizer's own are.
export ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$HERE/lsan.supp
check "RAM tests, address and undefined-behaviour sanitizers" suite address test-session 'ram__*'
check "device state, address and undefined-behaviour sanitizers" suite address test-devices 'devices__[aw]*'
check "failures, address and undefined-behaviour sanitizers" suite address test-session-failures 'peer__*'
check "cancelling, address and undefined-behaviour sanitizers" suite address test-session-failures 'cancel__*'
check "stock QEMU's protocol, address and undefined-behaviour sanitizers" stock_protocol address
# libibverbs is not instrumented: its locking of its own mutexes is not seen, its unlocking is.
export TSAN_OPTIONS="suppressions=$HERE/tsan.supp halt_on_error=1 report_mutex_bugs=0"
check "RAM tests, thread sanitizer" suite thread test-session 'ram__*'
check "device state, thread sanitizer" suite thread test-devices 'devices__[aw]*'
check "stream and RAM, thread sanitizer" suite thread test-session 'stream__never*'
check "failures, thread sanitizer" suite thread test-session-failures 'peer__*'
check "cancelling, thread sanitizer" suite thread test-session-failures 'cancel__*'
check "stock QEMU's protocol, thread sanitizer" stock_protocol thread
finish
