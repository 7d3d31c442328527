#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# fault-sweep.sh -- a small migration with the Nth acquisition failing, N = 1, 2, ... until none does
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=${VMFERRY_BUILD:?where the build with -Dfault_injection=true is}
export VMFERRY_PLUGIN_PATH=$BUILD/rdma

# The sweep itself is one process that forks a child for every N: see fault-sweep.c.
check "every fault point over unix:, natively" timeout 300 "$BUILD/tests/lab/fault-sweep"
# shellcheck disable=SC2016
in_lab() {
    "$HERE/../../tools/lab" exec --mem 2G --timeout 300 -- bash -c \
        'VMFERRY_TEST_URI=rdma:$LAB_ADDR:0 timeout 280 "$0/tests/lab/fault-sweep" && sleep 1 &&
         ! rdma resource show qp | grep "type RC" && ! rdma resource show mr | grep mrn' "$BUILD"
}
check "every fault point over rdma:, in the lab" in_lab
finish
