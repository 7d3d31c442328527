#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-two.sh -- tests between two lab hosts: losses of every kind; starts its own lab
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=${VMFERRY_BUILD:?where the build is}
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
LAB=$HERE/../../tools/lab
export VMFERRY_LAB_NAME=two-$$
PORT=5000

up() {
    "$LAB" up --hosts 2 --mem 2G
}

# The destination on host 2, in the background; its output in /tmp/destination of this machine.
listen() {
    PORT=$((PORT + 1))
    rm -f "$LOGS/destination" # its last line would be taken for that of this run
    "$LAB" run -h 2 -t 200 -- "$VMFERRY" bench --listen "rdma:10.77.0.2:$PORT,timeout=3s,connect-timeout=20s" "$@" >"$LOGS/destination" 2>&1 &
    LISTENER=$!
    await_listening "$LOGS/destination"
}

source_run() {
    local options=$1
    shift
    "$LAB" run -h 1 -t 200 -- "$VMFERRY" bench "rdma:10.77.0.2:$PORT,timeout=3s,connect-timeout=20s$options" --verify --progress none "$@"
}

transfer() {
    local status=0
    listen --once || return 1
    source_run "$@" || status=$?
    [ $status = 0 ] || on 2 'pkill -KILL vmferry'
    wait "$LISTENER" || status=$?
    [ $status = 0 ] || cat "$LOGS/destination"
    return $status
}

# A migration of minutes, in the background.
long_run() {
    listen || return 1
    source_run "$1" --ram 64M --rounds 100000 --dirty 30 >"$LOGS/source" 2>&1 &
    SOURCE=$!
    sleep 3
    kill -0 "$SOURCE"
}

# The source must say what happened soon, and end by itself. (Ending may take longer than saying:
# soft-RoCE's kernel waits, seconds for each queue pair, for packets that a dead link never takes.)
source_ends_saying() {
    local deadline=$((SECONDS + 60))
    until grep -qE "$1" "$LOGS/source"; do
        [ $SECONDS -lt $deadline ] || { cat "$LOGS/source" && echo "the source says nothing" && return 1; }
        sleep 0.2
    done
    deadline=$((SECONDS + 90))
    while kill -0 "$SOURCE" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "the source still runs" && return 1; }
        sleep 0.2
    done
    wait "$SOURCE" && echo "the source succeeded" && return 1
    return 0
}

destination_says() {
    local deadline=$((SECONDS + 60))
    until grep -qE "$1" "$LOGS/destination"; do
        [ $SECONDS -lt $deadline ] || { cat "$LOGS/destination" && return 1; }
        sleep 0.2
    done
}

on() {
    "$LAB" run -h "$1" -t 150 -- bash -c "$2" # a flooded host is slow to answer
}

LOST='lost|can no longer be written|no sign of life|closed|stuck|no longer answers|taken down'

destination_killed() {
    long_run "$1" && on 2 'pkill -KILL vmferry' && source_ends_saying "$LOST"
    local status=$?
    wait "$LISTENER"
    return $status
}

destination_stopped() {
    long_run "$1" && on 2 'pkill -STOP vmferry' && source_ends_saying 'no sign of life|stuck'
    local status=$?
    on 2 'pkill -KILL vmferry'
    wait "$LISTENER"
    return $status
}

source_killed() {
    local status=0
    long_run "$1" && on 1 'pkill -KILL vmferry' && destination_says "$LOST" || status=$?
    wait "$SOURCE"
    # The listener lives on and serves the next source.
    source_run "$1" --ram 8M || status=$?
    on 2 'pkill -KILL vmferry'
    wait "$LISTENER"
    return $status
}

link_cut() {
    local status=0
    long_run "$1" && "$LAB" link cut && source_ends_saying "$LOST" && destination_says "$LOST" || status=$?
    "$LAB" link restore
    sleep 2
    source_run "$1" --ram 8M || status=$?
    on 2 'pkill -KILL vmferry'
    wait "$LISTENER"
    return $status
}

host_killed() {
    local status=0
    long_run "$1" && "$LAB" kill 2 && source_ends_saying "$LOST" || status=$?
    wait "$LISTENER"
    return $status
}

no_leaks() {
    local number
    sleep 5
    for number in 1 2; do
        on "$number" 'rdma resource show qp | grep "type RC" && exit 1; rdma resource show mr | grep mrn && exit 1; exit 0' || return 1
    done
}

# The link is down for two seconds from GO on: both sides say whose the VM is.
cut_in_the_hand_over() {
    local step=$1 source=$2 destination=$3 status=0
    local options=timeout=8s,connect-timeout=20s,channels=2
    PORT=$((PORT + 1))
    rm -f "$LOGS/destination"
    "$LAB" run -h 2 -t 150 -- "$BUILD/tests/lab/handover-peer" listen "rdma:10.77.0.2:$PORT,$options" >"$LOGS/destination" 2>&1 &
    LISTENER=$!
    await_listening "$LOGS/destination" || return 1
    "$LAB" run -h 1 -t 150 -- "$BUILD/tests/lab/handover-peer" connect "rdma:10.77.0.2:$PORT,$options" "$step" vec0 2 >"$LOGS/source" 2>&1 || status=$?
    wait $LISTENER || status=$?
    cat "$LOGS/source" "$LOGS/destination"
    [ $status = 0 ] && ! grep "was not cut" "$LOGS/source" && grep -q "^owner: $source" "$LOGS/source" && grep -q "^owner: $destination" "$LOGS/destination"
}

shaped() {
    local shape=$1
    shift
    "$LAB" link "$shape" && transfer "$@"
    local status=$?
    "$LAB" link clear
    return $status
}

LOGS=$(mktemp -d)
trap '"$LAB" down; rm -rf "$LOGS"' EXIT
up || { echo "the lab does not start" && exit 1; }
check "transfer between two hosts, chunk, 1 channel" transfer ",channels=1" --ram 64M --rounds 3
check "transfer between two hosts, pin-all, 8 channels" \
    transfer ",registration=pin-all,channels=8" --ram 64M --rounds 3 --writers 2
check "5 ms delay, 8 channels" shaped delay=5ms ",channels=8" --ram 32M --rounds 2
check "5 ms delay, 8 channels, random pages one by one, zero pages coming and going" \
    shaped delay=5ms ",channels=8,gap=0" --ram 16M --rounds 2 --zero 30
check "1 % loss: slower, right" shaped loss=1% ",channels=4,timeout=20s" --ram 16M --rounds 2
check "the destination killed" destination_killed ",channels=4"
check "the destination stopped (SIGSTOP)" destination_stopped ",channels=4"
check "the source killed; the listener goes on" source_killed ",channels=4"
check "nothing is left on the devices" no_leaks
check "the kernel logs are clean" "$LAB" check
# Packets stuck on a dead link keep soft-RoCE's objects busy, which its kernel warns of.
export VMFERRY_LAB_BENIGN='rxe_pool\.c:[0-9]+ __rxe_cleanup'
check "the link cut and mended" link_cut ",channels=4"
check "the kernel logs are clean but for that" "$LAB" check
check "the link cut for two seconds as GO leaves: the destination owns the VM, and both say so" \
    cut_in_the_hand_over go "the other side" "this side"
check "the link cut for two seconds after GO: the same" cut_in_the_hand_over go-out "the other side" "this side"
check "the destination's host killed" host_killed ",channels=4"
check "the survivor's kernel log is clean but for that" "$LAB" check
finish
