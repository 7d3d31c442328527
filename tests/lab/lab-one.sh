#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-one.sh -- tests on real soft-RoCE within one lab host; run it by tools/lab exec
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=${VMFERRY_BUILD:?where the build is}
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
PORT=5000

# bench DESTINATION-OPTIONS SOURCE-OPTIONS [ARGUMENT...]: one verified run between two processes,
# at this host's address or at $listen and to $address.
bench() {
    local there=rdma:${listen:-$LAB_ADDR} here=rdma:${address:-$LAB_ADDR} listener status=0
    local there_options=$1 here_options=$2
    shift 2
    PORT=$((PORT + 1))
    timeout 120 "$VMFERRY" bench --listen "$there:$PORT$there_options" --once >"/tmp/listen.$PORT" 2>&1 &
    listener=$!
    await_listening "/tmp/listen.$PORT"
    timeout 120 "$VMFERRY" bench "$here:$PORT$here_options" --verify --progress none "$@" || status=$?
    if [ $status != 0 ]; then
        kill $listener 2>/dev/null
    fi
    wait $listener || { status=$((status ? status : $?)) && sed 's/^/destination: /' "/tmp/listen.$PORT"; }
    return $status
}

# bench() in a process that may pin only so many KiB, and has no privilege to pin more.
limited() {
    local kib=$1
    shift
    (ulimit -l "$kib" && bench_limited=1 && export bench_limited && "$@")
}

session_suite() {
    VMFERRY_TEST_URI=$1 timeout 120 "$BUILD/tests/session/test-session" &&
        VMFERRY_TEST_URI=$1 timeout 120 "$BUILD/tests/session/test-session-failures"
}

sweep() {
    local registration channels
    for registration in chunk pin-all; do
        for channels in 1 2 4 8; do
            check "transfer, $registration, $channels channels, dirty rounds and writers" \
                bench "" ",registration=$registration,channels=$channels" --ram 48M --rounds 4 \
                --dirty 20 --writers 2 --zero 20 --devices 2x300K --stream 1M
        done
    done
}

# No queue pair and no memory region may be left when nobody uses it.
nothing_left() {
    local left
    sleep 0.5
    left=$(rdma resource show qp 2>/dev/null | grep -c 'type RC') || true
    [ "$left" = 0 ] || { rdma resource show qp && return 1; }
    left=$(rdma resource show mr 2>/dev/null | grep -c 'mrn') || true
    [ "$left" = 0 ] || { rdma resource show mr && return 1; }
}

# stranger STATUS HOW: a client that must be let in (0) or refused (3), or that leaves by itself.
stranger() {
    local expected=$1 status=0
    timeout 10 "$BUILD/tests/lab/stranger" "$LAB_ADDR" 4999 "$2" || status=$?
    [ "$status" = "$expected" ] || { echo "stranger $2: exit status $status" && return 1; }
}

# Before the real client come clients of another protocol, and silent, half-open and noisy ones.
strangers() {
    local listener status=0 silent
    timeout 100 "$VMFERRY" bench --listen "rdma:$LAB_ADDR:4999,connect-timeout=2s" --once >/tmp/strangers 2>&1 &
    listener=$!
    await_listening /tmp/strangers
    timeout 5 rping -c -a "$LAB_ADDR" -p 4999 -C 1 >/dev/null 2>&1
    stranger 3 garbage || status=1
    stranger 3 channel || status=1
    stranger 0 half || status=1
    stranger 0 noise || status=1
    timeout 60 "$BUILD/tests/lab/stranger" "$LAB_ADDR" 4999 silent >/dev/null &
    silent=$!
    stranger 0 half || status=1
    timeout 60 "$VMFERRY" bench "rdma:$LAB_ADDR:4999,connect-timeout=20s" --ram 4M --verify || status=$?
    kill $silent
    wait $listener || { status=$? && cat /tmp/strangers; }
    return $status
}

# Nobody answers at the first addresses of a name: each address is tried in turn.
several_addresses() {
    local status=0
    printf '%s\n' "127.0.0.1 localhost" "10.77.0.99 vm-target" "$LAB_ADDR vm-target" >/tmp/hosts
    mount --bind /tmp/hosts /etc/hosts
    address=vm-target bench "" ",connect-timeout=4s,channels=2" --ram 4M || status=$?
    umount /etc/hosts
    return $status
}

# Each source is served, some of them after they were told that the listener is busy.
sixteen_sources() {
    local pids=() status=0 listener i
    timeout 300 "$VMFERRY" bench --listen "rdma:$LAB_ADDR:4996" >/tmp/sixteen 2>&1 &
    listener=$!
    await_listening /tmp/sixteen
    for i in $(seq 16); do
        timeout 280 "$VMFERRY" bench "rdma:$LAB_ADDR:4996,channels=2" --progress none --ram $((i % 3 + 1))M --verify \
            >"/tmp/sixteen.$i" 2>&1 &
        pids+=($!)
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || { status=1 && cat "/tmp/sixteen.$((i + 1))"; }
    done
    kill $listener
    wait $listener
    if grep 'RAM block' /tmp/sixteen /tmp/sixteen.*; then
        status=1
    fi
    [ $status = 0 ] || cat /tmp/sixteen
    return $status
}

# A destination runs out of descriptors: it says so, and serves the next source.
few_descriptors() {
    local listener status=0
    (ulimit -n 40 && exec timeout 100 "$VMFERRY" bench --listen "rdma:$LAB_ADDR:4995") >/tmp/few 2>&1 &
    listener=$!
    await_listening /tmp/few
    timeout 60 "$VMFERRY" bench "rdma:$LAB_ADDR:4995,channels=32" --ram 4M --progress none >/tmp/few.source 2>&1 && status=1
    grep -q 'Too many open files' /tmp/few || status=1
    grep -q 'Too many open files' /tmp/few.source || status=1
    timeout 60 "$VMFERRY" bench "rdma:$LAB_ADDR:4995,channels=1" --ram 4M --verify --progress none || status=1
    kill $listener
    wait $listener
    cat /tmp/few.source /tmp/few
    return $status
}

link_local() {
    local scoped
    scoped=[$(ip -6 -o address show dev "$LAB_NETDEV" scope link | sed 's/.*inet6 \(fe80[^/]*\).*/\1/')%$LAB_NETDEV]
    address=$scoped listen=$scoped bench "" ",channels=2" --ram 4M
}

memlock_chunk() {
    local output
    output=$(limited 24576 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$0" --bench "" ",channels=2" --ram 64M --rounds 2 --dirty 20) ||
        { echo "$output" && return 1; }
    echo "$output"
    # It must have given up chunks and registered them again.
    grep -qE ' [1-9][0-9]* evictions' <<<"$output"
}

memlock_pin_all() {
    fails_saying 'cannot pin .*memory-lock limit is .*registration=chunk' \
        limited 24576 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$0" --bench "" ",registration=pin-all,channels=1" --ram 64M
}

memlock_pin_ahead() {
    fails_saying 'cannot pin .*memory-lock limit is .*registration=chunk' \
        limited 24576 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$0" --bench ",registration=pin-all" ",registration=pin-all,channels=1" --ram 64M
}

# A rootless container has every capability in its user namespace, and the limit holds all the same.
contained() { # KIB ARGUMENT OF bench...
    local kib=$1
    shift
    limited "$kib" unshare --user --map-root-user "$0" --bench "$@"
}

container_chunk() {
    local output
    output=$(contained 24576 "" ",channels=2" --ram 64M --rounds 2 --dirty 20) || { echo "$output" && return 1; }
    echo "$output"
    grep -qE ' [1-9][0-9]* evictions' <<<"$output"
}

container_pin_all() {
    fails_saying 'cannot pin .*memory-lock limit is .*registration=chunk' \
        contained 24576 "" ",registration=pin-all,channels=1" --ram 64M
}

pinned_ahead_anywhere() {
    listen='[::]' bench ",registration=pin-all" ",registration=pin-all" --ram 64M --rounds 2
}

memlock_tiny() {
    fails_saying 'memory-lock limit' \
        limited 64 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$0" --bench "" "" --ram 8M
}

result_as_documented() {
    local listener status=0
    timeout 100 "$VMFERRY" bench --listen "rdma:$LAB_ADDR:4997" >/tmp/listen.json 2>&1 &
    listener=$!
    await_listening /tmp/listen.json
    timeout 100 "$VMFERRY" bench "rdma:$LAB_ADDR:4997" --channels 1,2 --raw --ram 16M --rounds 2 --devices 2x3M,job-delay=3ms,slow=1 \
        --device-ways channels,stream --verify --json /tmp/result.json --plot /tmp/result.svg || status=$?
    kill $listener
    wait $listener
    [ $status = 0 ] && python3 "$HERE/../command/bench-json.py" /tmp/result.json 4 && grep -q '<svg' /tmp/result.svg
}

if [ "${1:-}" = --bench ]; then
    shift
    PORT=$((6000 + RANDOM % 1000))
    bench "$@"
    exit
fi

if [ "$LAB_DEVICE" = siw0 ]; then
    # Fewer queue pairs than the whole-session suite needs: siw has room for few in one process.
    check "transfer over soft-iWARP, chunk" bench "" ",channels=4" --ram 32M --rounds 2
    check "transfer over soft-iWARP, pin-all" bench "" ",registration=pin-all,channels=2" --ram 32M --rounds 2
    check "nothing is left on the device" nothing_left
    finish
    exit
fi
check "whole sessions over rdma:, IPv4" session_suite "rdma:$LAB_ADDR:0"
check "device state in parallel over rdma:" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" VMFERRY_TEST_RUNS=20 timeout 240 "$BUILD/tests/session/test-devices"
check "device state in parallel over rdma:, by messages" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0,device-write=off" VMFERRY_TEST_RUNS=5 timeout 240 "$BUILD/tests/session/test-devices"
check "the control connection cannot write guest RAM, nor when the guest may run" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 60 "$BUILD/tests/lab/test-rdma-access"
check "a shared ROM, and memory that is filled when it is asked for" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 60 "$BUILD/tests/session/test-odd-memory"
check "RAM that is named after the session is connected" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 100 "$BUILD/tests/session/test-late-ram"
check "RAM that is named late, pinned" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0,registration=pin-all" VMFERRY_TEST_SKIP='unplaced*' timeout 100 "$BUILD/tests/session/test-late-ram"
check "memory of every kind: of files, in pieces, read-only, merged, at odd ends, inaccessible" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 300 "$BUILD/tests/session/test-memory"
check "memory that is discarded, and forks, in a migration" \
    env VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 400 "$BUILD/tests/session/test-discards"
check "forks in a migration, where children do not have guest RAM" \
    env RDMAV_FORK_SAFE=1 VMFERRY_TEST_FILTER='forks*' VMFERRY_TEST_URI="rdma:$LAB_ADDR:0" timeout 400 "$BUILD/tests/session/test-discards"
check "whole sessions over rdma:, IPv6" session_suite "rdma:[$LAB_ADDR6]:0"
sweep
check "sizes that are no multiple of chunk or page" \
    bench "" ",chunk-size=64K,channels=3" --ram 33333333 --rounds 2
check "RAM pinned ahead by the destination" \
    bench ",registration=pin-all" ",registration=pin-all,channels=3" --ram 33333333 --rounds 2 --devices 2x3M
check "RAM pinned ahead on any address" pinned_ahead_anywhere
check "RAM pinned ahead for a source that registers chunks" \
    bench ",registration=pin-all" ",channels=2" --ram 64M --rounds 2
check "smallest chunks and window" \
    bench "" ",chunk-size=64K,max-inflight=64K,channels=2" --ram 24M --rounds 3 --zero 40
check "bridging no gap, polling first" bench "" ",gap=0,poll-us=50" --ram 16M --rounds 2
check "without zero detection" bench "" ",zero-detect=off" --ram 16M --zero 30
check "a sweep's result as JSON is as documented, and is drawn" result_as_documented
check "a pin budget of a sixteenth, with evictions" \
    bench "" ",pin-budget=4M,channels=2" --ram 32M --rounds 3 --dirty 30
check "a small memory-lock limit slows, does not break" memlock_chunk
check "pin-all under a memory-lock limit says what to do" memlock_pin_all
check "pinning ahead under a memory-lock limit says what to do" memlock_pin_ahead
check "a memory-lock limit of 64 KiB says what to do" memlock_tiny
check "a user namespace without a limit of its own: works" contained unlimited "" ",channels=2" --ram 16M
check "in a user namespace the memory-lock limit holds, slows, does not break" container_chunk
check "in a user namespace pin-all under a limit says what to do" container_pin_all
check "a listener survives strangers, half-open and noisy clients" strangers
check "a name with several addresses: each is tried" several_addresses
check "sixteen sources at one destination are served in turn" sixteen_sources
check "a destination without descriptors for all channels says so, and goes on" few_descriptors
check "a link-local IPv6 address with its scope" link_local
check "connecting to nobody says so" \
    fails_saying 'listen on that port' timeout 30 "$VMFERRY" bench "rdma:$LAB_ADDR:4998" --ram 4M
check "connecting to an address without a route says so" \
    fails_saying 'cannot connect to' timeout 30 "$VMFERRY" bench "rdma:192.0.2.1:4998,connect-timeout=3s" --ram 4M
check "on-demand paging without a device for it says so" \
    fails_saying 'on-demand paging' bench "" ",registration=odp" --ram 4M
check "nothing is left on the device" nothing_left
finish
