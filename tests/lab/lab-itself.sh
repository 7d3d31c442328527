#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-itself.sh -- what the lab does when a host hangs, and from which folders it works
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
LAB=$HERE/../../tools/lab
WORK=$(mktemp -d /var/tmp/vmferry-lab.XXXXXX)
COPY=$(mktemp -d /tmp/vmferry-checkout.XXXXXX)
trap 'rm -rf "$WORK" "$COPY"' EXIT

# The kernel stops, as one that hangs. No command is run a second time.
hang() {
    local status=0 runner
    VMFERRY_LAB_DIR=$WORK VMFERRY_LAB_PROBE=3 "$LAB" exec --mem 128M --timeout 5 -- bash -c 'echo begun && sleep 60' >"$WORK/said" 2>&1 &
    runner=$!
    until grep -q begun "$WORK/said"; do
        kill -0 $runner 2>/dev/null || { cat "$WORK/said" && return 1; }
        sleep 0.1
    done
    kill -STOP "$(cat "$WORK"/*/host1/pid)"
    wait $runner || status=$?
    cat "$WORK/said"
    [ $status = 123 ] && grep -q 'host 1 hangs; it was to run: bash' "$WORK/said" && [ "$(grep -cx begun "$WORK/said")" = 1 ]
}

slow_command() {
    local status=0
    "$LAB" exec --mem 128M --timeout 3 -- sleep 60 >"$WORK/said" 2>&1 || status=$?
    cat "$WORK/said"
    [ $status = 124 ] && grep -q 'the host is well' "$WORK/said"
}

# However long its host has run, a lab that gets SIGTERM leaves nothing behind.
told_to_end() {
    local seconds runner status
    for seconds in 0.1 0.7 1.5 3 3.3 3.5; do
        status=0
        VMFERRY_LAB_DIR=$WORK "$LAB" exec --mem 128M -- sleep 60 >"$WORK/said" 2>&1 &
        runner=$!
        until [ -e "$WORK/exec-$runner/host1/pid" ]; do
            kill -0 $runner 2>/dev/null || { cat "$WORK/said" && return 1; }
            sleep 0.1
        done
        sleep "$seconds"
        kill -TERM $runner
        wait $runner || status=$?
        [ $status = 130 ] || { echo "after $seconds s: status $status" && cat "$WORK/said" && return 1; }
        [ ! -e "$WORK/exec-$runner" ] || { echo "after $seconds s: the host is left" && return 1; }
    done
}

# A host has a /tmp of its own, but must see a checkout below this machine's /tmp.
checkout_below_tmp() {
    cp -r "$HERE/../../tools" "$HERE" "$COPY"
    # shellcheck disable=SC2016
    (cd "$COPY" && tools/lab exec --mem 128M --timeout 60 -- \
        bash -c 'test -x "$0/tools/lab" && echo written >/tmp/a-file && cat /tmp/a-file' "$COPY")
}

check "a host that hangs is called so, once, with a status of its own" hang
check "a command that takes too long on a host that is well is called that" slow_command
check "a lab that is told to end takes its host with it" told_to_end
check "a checkout below /tmp is seen in a host, whose /tmp can be written" checkout_below_tmp
finish
