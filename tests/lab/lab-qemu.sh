#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-qemu.sh -- QEMU with vmferry migrates real guests, on one lab host and between two, to and
# from itself, stock QEMU and files
#
# lab-qemu.sh [works|fails|saved|stock|debian|wrapped|versions|two|preload|preload-losses|preload-memory|
#     preload-two|preload-matrix]...: what runs, one after the other; nothing: all but the last.
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
LAB=$HERE/../../tools/lab
export PYTHONDONTWRITEBYTECODE=1

# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"

QEMU=
for part in "${@:-works}"; do
    case $part in
    preload*) ;; # these have Debian's alone
    *) QEMU=$("$HERE/../../tools/qemu/build") && break || exit 1 ;;
    esac
done
GUEST=$("$HERE/../../tools/qemu/guest") || exit 1

# A lab host of its own, in which a script runs. (saved.py runs vmferry itself.)
in_a_host() { # SCRIPT ARGUMENTS...
    local script=$1
    shift
    "$LAB" exec --mem 4G --timeout 1900 -- env LD_LIBRARY_PATH="${QEMU%/bin/*}/lib" python3 "$HERE/../qemu/$script" "$QEMU" "$GUEST" "$@"
}

start_agent() {
    "$LAB" run -h 2 -t 1500 -- python3 "$HERE/../../tools/qemu/agent.py" 10.77.0.2 4000 &
}

with_debian() { # SCRIPT
    local roots
    roots=$("$HERE/../../tools/qemu/debian" all) || return 1
    # shellcheck disable=SC2086
    in_a_host "$1" $roots
}

# A QEMU of Debian's with the library of a build preloaded, and vmferry's command.
preload() { # SCRIPT ROOT...
    local script=$1
    shift
    "$LAB" exec --mem 4G --timeout 2900 -- python3 "$HERE/../qemu/$script.py" "$GUEST" "${VMFERRY_BUILD:?where the build is}" "$@"
}

roots() { # VERSION...
    for version in "$@"; do "$HERE/../../tools/qemu/debian" "$version" || return 1; done
}

preload_with() { # SCRIPT VERSION...
    local list
    list=$(roots "${@:2}") || return 1
    # shellcheck disable=SC2086
    preload "$1" $list
}

# A QEMU of a version that the glue does not know is refused before anything is built.
other_versions() {
    local tree version status=0
    tree=$(mktemp -d)
    mkdir -p "$tree/migration" "$tree/include/system"
    touch "$tree/migration/rdma.c" "$tree/include/system/runstate.h"
    echo rdma_control_save_page >"$tree/migration/rdma.h"
    echo QEMUFileHooks >"$tree/migration/qemu-file.h" # as in the versions that are known
    for version in 8.0.5 8.1.0 9.2.4 10.1.0 11.1.0; do
        echo "$version" >"$tree/VERSION"
        fails_saying "QEMU $version,.* 7\.2 and 10\.0 are" "$HERE/../../tools/qemu/build" --source "$tree" || status=1
    done
    rm -rf "$tree"
    return "$status"
}

versions() {
    check "versions of QEMU that the glue does not know are refused by name" other_versions
    finish
}

# Does for the test on host 1 what only this machine can do.
serve_requests() {
    local folder=$1 words status
    while [ -d "$folder" ]; do
        if [ -e "$folder/request" ]; then
            words=$(cat "$folder/request")
            rm "$folder/request"
            # shellcheck disable=SC2086
            "$LAB" $words >&2
            status=$?
            [ "$words" != "restart 2" ] || start_agent
            echo $status >"$folder/answer.new"
            mv "$folder/answer.new" "$folder/answer"
        fi
        sleep 0.1
    done
}

# Two hosts, on the first of which a function runs scripts.
with_two_hosts() { # FUNCTION
    local status=0 folder
    export VMFERRY_LAB_NAME=qemu-two-$$
    "$LAB" up --hosts 2 --mem 3G || return 1
    folder=$("$LAB" folder 1)
    start_agent
    serve_requests "$folder" &
    "$1" || status=$?
    "$LAB" down
    wait
    return "$status"
}

on_first_host() { # SCRIPT ARGUMENTS...
    "$LAB" run -h 1 -t 1500 -- python3 "$HERE/../qemu/$1.py" "${@:2}"
}

run_two_hosts() {
    local status=0
    for test in two_hosts stock; do
        on_first_host "$test" "$QEMU" "$GUEST" || status=$?
    done
    return "$status"
}

run_preload_two() {
    on_first_host preload_two "$GUEST" "${VMFERRY_BUILD:?where the build is}" "$(roots 10.0)"
}

run() {
    case $1 in
    works | fails) in_a_host one_host.py "$1" ;;
    saved) in_a_host saved.py "${QEMU%/*}/vmferry" ;;
    stock) in_a_host stock.py ;;
    debian | wrapped) with_debian "$1.py" ;;
    versions) versions ;;
    two) with_two_hosts run_two_hosts ;;
    preload) preload_with preload 7.2 10.0 11 ;;
    preload-losses) preload_with preload_losses 10.0 ;;
    preload-two) with_two_hosts run_preload_two ;;
    preload-matrix) preload_with preload_matrix 7.2 10.0 11 ;;
    preload-memory) preload_with preload_memory 10.0 11 ;;
    *)
        echo "lab-qemu.sh: no part \"$1\" (works, fails, saved, stock, debian, wrapped, versions, two, preload," \
            "preload-losses, preload-memory, preload-two, preload-matrix)" >&2
        return 2
        ;;
    esac
}

# One closing line for all scripts. A script without its own closing line has not finished.
sums='^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
[ $# -gt 0 ] || set -- works fails saved stock debian wrapped versions two preload preload-losses preload-memory preload-two
log=$(mktemp)
expected=0
for part in "$@"; do
    run "$part" 2>&1 | tee -a "$log" | grep --line-buffered -vE "$sums"
    expected=$((expected + ($([ "$part" = two ] && echo 2 || echo 1))))
done
closed=$(grep -cE "$sums" "$log")
[ "$closed" -ge $expected ] || echo "FAILED  $((expected - closed)) parts of the QEMU tests did not finish" | tee -a "$log"
awk '/^[0-9]+ passed, /{p += $1; f += $3; s += $5} /^FAILED .* did not finish$/{f++}
     END {print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped"; exit f != 0}' "$log"
status=$?
rm -f "$log"
exit $status
