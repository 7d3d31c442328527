# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# parts.sh -- what tools/test consists of: the builds, and the parts that need them

# name | builds it needs | seconds it may take | resource of which there is one | what it is
# In the order in which they are begun: the longest first, so that all lanes end at about the same time.
# "machine" are the parts that keep more than one CPU busy.
PARTS='
lint         | plain        |  400 |         | formatting, clang-tidy, shellcheck, the rules of the tree
model        |              |  900 |         | models: every state visited
one          | plain kernel | 1300 |         | real soft-RoCE, one host
qemu-works   | qemu kernel  | 2000 |         | QEMU, one host: what works
vm-thread    | thread       | 1200 | machine | two CPUs, thread sanitizer
vm-address   | address      | 1200 | machine | two CPUs, address and undefined-behaviour sanitizers
two          | plain kernel |  900 | machine | two hosts: losses of every kind
qemu-two     | qemu kernel  | 1500 | machine | QEMU, two hosts
qemu-fails   | qemu kernel  | 2000 |         | QEMU, one host: what must fail well
qemu-stock   | qemu kernel  | 2000 |         | QEMU and stock QEMU, one host
qemu-wrapped | qemu debian kernel | 900 |      | an unpatched QEMU over vmferry, started as libvirt does, one host
qemu-versions| qemu kernel  |  300 |         | QEMU: versions that the build refuses
qemu-saved   | qemu kernel  | 2000 |         | QEMU and files
v1           | plain kernel |  900 |         | a peer that errs in stock QEMU'\''s protocol
unit-thread  | thread       |  900 |         | unit tests, thread sanitizer
unit-address | address      |  900 |         | unit tests, address and undefined-behaviour sanitizers
faults       | faults kernel|  900 |         | faults at every point
unit         | plain        |  600 |         | unit tests
unit-waits   | plain        |  400 |         | unit tests that wait for time-outs
command      | plain        |  700 |         | the command
install      |              |  900 |         | without rdma-core, and as installed
device       | plain kernel |  700 |         | RDMA devices and addresses that come and go
siw          | plain kernel |  900 |         | soft-iWARP
lab          | kernel       |  300 |         | the lab itself
long-chance  | address      | 3000 |         | long: device state by chance, ten thousand runs
long-fuzz    | address      | 3000 |         | long: a million mutated messages for each parser
long-thread  | thread       | 3000 |         | long: the threads'\'' tests twenty times, thread sanitizer
long-preload-works | plain debian kernel guest | 1500 | | long: unpatched QEMUs with the preloaded library, one host
long-preload-losses | plain debian kernel guest | 1500 | | long: the same: losses in every phase, one host
long-preload-memory | plain debian kernel guest | 1500 | | long: the same: balloons, and memory of other kinds
long-preload-two | plain debian kernel guest | 900 | machine | long: the same: losses of link and host, two hosts
long-preload | plain debian kernel guest | 3000 | | long: every version, side and mode of the preloaded library
long-qemu    | qemu kernel  | 3600 |         | long: fifty migrations of one guest, and what resembles checks of the usual run
long-debian  | qemu debian kernel | 900 |      | long: the QEMUs of Debian'\''s releases without vmferry, one host
'

# parts: the table's lines without blanks at the fields' ends.
parts() {
    sed '/^$/d; s/ *| */|/g' <<<"$PARTS"
}

# field NAME NUMBER: of a part.
field() {
    parts | awk -F'|' -v name="$1" -v number="$2" '$1 == name { print $number }'
}

list_parts() {
    parts | awk -F'|' '{ printf "%-19s %s\n", $1, $5 }'
}

# Sets CHOSEN to the names; WORDS are names or patterns with commas between, or nothing for all but the long.
choose_parts() {
    local name pattern
    CHOSEN=()
    while read -r name; do
        [ -n "$1" ] || case $WHAT:$name in usual:long-*) continue ;; *) CHOSEN+=("$name") && continue ;; esac
        for pattern in ${1//,/ }; do
            # shellcheck disable=SC2053
            if [[ $name == $pattern ]]; then CHOSEN+=("$name") && break; fi
        done
    done < <(parts | cut -d'|' -f1)
    [ ${#CHOSEN[@]} -gt 0 ]
}

# --- builds ---

# meson_build NAME OPTIONS...: a build of its own with warnings as errors.
meson_build() {
    local dir=$WORK/$1
    shift
    # A build of another checkout, or with other options, is made again.
    if [ "$(cat "$dir/.made-by" 2>/dev/null)" != "$TOP $*" ]; then
        rm -rf "$dir"
        meson setup "$dir" -Dwerror=true "$@" || return 1
        echo "$TOP $*" >"$dir/.made-by"
    fi
    ninja -C "$dir"
}

build() {
    case $1 in
    plain) meson_build plain -Dbuildtype=debugoptimized ;;
    address) meson_build address -Db_sanitize=address,undefined -Db_lundef=false ;;
    thread) meson_build thread -Db_sanitize=thread -Db_lundef=false ;;
    faults) meson_build faults -Dfault_injection=true -Db_lundef=false ;;
    kernel) tools/lab kernel ;;
    qemu) tools/qemu/build && tools/qemu/guest ;;
    guest) tools/qemu/guest ;;
    debian) tools/qemu/debian all ;;
    esac
}

# --- parts ---

TSAN="suppressions=$TOP/tests/support/tsan.supp halt_on_error=1"

# meson_tests BUILD SUITE OPTIONS...: each test is a line; then the closing line.
meson_tests() {
    local build=$WORK/$1 suite=$2 log=$WORK/logs/meson-$1-$2.log ok failed
    shift 2
    meson test -C "$build" --no-rebuild --logbase="testlog-$suite" --suite "$suite" --print-errorlogs "$@" >"$log" 2>&1
    grep -E '^ *[0-9]+/[0-9]+ ' "$log"
    ok=$(awk '/^Ok:/ { print $2 }' "$log")
    failed=$(awk -F': *' '/^(Fail|Timeout|Unexpected Pass):/ { n += $2; seen = 1 } END { print seen ? n : 1 }' "$log")
    [ "$failed" = 0 ] || tail -80 "$log"
    echo "${ok:-0} passed, $failed failed, 0 skipped"
}

in_lab() { # EXEC'S-OPTIONS... -- SCRIPT
    tools/lab exec "${@:1:$#-2}" -- "$TOP/${*: -1}"
}

# Each parser starts a process of its own, so that a failure says which one it is.
fuzzed() {
    local replay seed=$RANDOM passed=0 failed=0
    for replay in "$WORK"/address/tests/fuzz/replay-*; do
        [ -f "$replay" ] || continue # ninja has folders of the same names
        if "$replay" 1000000 "$seed"; then
            passed=$((passed + 1)) && echo "ok      ${replay##*/} 1000000 $seed"
        else
            failed=$((failed + 1)) && echo "FAILED  ${replay##*/} 1000000 $seed"
        fi
    done
    echo "$passed passed, $failed failed, 0 skipped"
}

# One test at a time, because the other CPUs run other parts.
run_part() {
    local jobs=--num-processes=1
    [ -n "${VMFERRY_TEST_ALONE:-}" ] && jobs=--num-processes=$(nproc)
    case $1 in
    lint) tests/check-lint "$WORK/plain" ;;
    model) tests/model/check ;;
    unit) VMFERRY_TEST_RUNS=${VMFERRY_TEST_RUNS:-300} meson_tests plain unit "$jobs" ;;
    unit-waits) meson_tests plain waits "$jobs" ;;
    unit-address) meson_tests address unit "$jobs" ;;
    unit-thread) TSAN_OPTIONS=$TSAN meson_tests thread threads "$jobs" ;;
    command) tests/command/command.sh ;;
    install) tests/command/without-rdma.sh "$WORK" ;;
    one) in_lab --mem 3G --timeout 1200 -- tests/lab/lab-one.sh ;;
    siw) in_lab --mem 3G --device siw --timeout 800 -- tests/lab/lab-one.sh ;;
    device) in_lab --mem 2G --timeout 600 -- tests/lab/lab-device.sh ;;
    lab) tests/lab/lab-itself.sh ;;
    v1) in_lab --mem 2G --timeout 800 -- tests/lab/lab-v1.sh ;;
    two) tests/lab/lab-two.sh ;;
    faults) VMFERRY_BUILD=$WORK/faults tests/lab/fault-sweep.sh ;;
    vm-address | vm-thread) tests/lab/lab-vm.sh "$WORK" "${1#vm-}" ;;
    qemu-*) tests/lab/lab-qemu.sh "${1#qemu-}" ;;
    long-chance) VMFERRY_TEST_RUNS=10000 meson_tests address unit --timeout-multiplier=20 devices ;;
    long-fuzz) fuzzed ;;
    long-qemu) VMFERRY_TEST_LONG=1 tests/lab/lab-qemu.sh works fails stock two ;;
    long-debian) tests/lab/lab-qemu.sh debian ;;
    long-preload) tests/lab/lab-qemu.sh preload-matrix ;;
    long-preload-works) tests/lab/lab-qemu.sh preload ;;
    long-preload-*) tests/lab/lab-qemu.sh "${1#long-}" ;;
    long-thread) TSAN_OPTIONS=$TSAN meson_tests thread threads --num-processes=1 --repeat=20 ;;
    *) echo "no part $1" && return 1 ;;
    esac
}
