#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-v1.sh -- stock QEMU's protocol with a peer that errs, on real queue pairs; by tools/lab exec
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=${VMFERRY_BUILD:?where the build is}
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
PEER=$BUILD/tests/lab/v1-peer
FILE=/tmp/small.mig
PORT=6000

# receive EXPECTED-STATUS HOW...: a source that errs, against vmferry receive.
receive() {
    local expected=$1 status=0 receiver
    shift
    PORT=$((PORT + 1))
    rm -f "$FILE.new" /tmp/receive.log
    timeout 30 "$VMFERRY" receive "rdma:$LAB_ADDR:$PORT,connect-timeout=3s${OPTIONS:-}" --save "$FILE.new" >/tmp/receive.log 2>&1 &
    receiver=$!
    await_listening /tmp/receive.log
    timeout 30 "$PEER" source "$LAB_ADDR" "$PORT" "$@" >/tmp/peer.log 2>&1
    wait $receiver || status=$?
    if [ $status != "$expected" ]; then
        echo "source, $*: vmferry ended with $status, not $expected; it and the peer said:"
        cat /tmp/receive.log /tmp/peer.log
        return 1
    fi
    if [ "$expected" = 0 ] && ! [ -s "$FILE.new" ] || [ "$expected" != 0 ] && ls "$FILE.new"* 2>/dev/null; then
        echo "source, $*: there is a file and should not be, or the reverse"
        return 1
    fi
}

# send EXPECTED-STATUS HOW...: a destination that errs, against vmferry send.
send() {
    local expected=$1 status=0 listener
    shift
    PORT=$((PORT + 1))
    rm -f /tmp/peer.log
    timeout 30 "$PEER" destination "$LAB_ADDR" "$PORT" "$@" >/tmp/peer.log 2>&1 &
    listener=$!
    await_listening /tmp/peer.log
    timeout 30 "$VMFERRY" send --load "$FILE" "rdma:$LAB_ADDR:$PORT" >/tmp/send.log 2>&1 || status=$?
    wait $listener
    if [ $status != "$expected" ]; then
        echo "destination, $*: vmferry ended with $status, not $expected; it and the peer said:"
        cat /tmp/send.log /tmp/peer.log
        return 1
    fi
}

a_migration() {
    receive 0 && mv "$FILE.new" "$FILE" && send 0
}

# The file holds the page's 4 KiB of 0x5a as often as it was written.
pages_saved() { # NUMBER
    local pages
    pages=$(tr -dc '\132' <"$FILE.new" | wc -c)
    [ $((pages / 4096)) = "$1" ] || { echo "$pages bytes of the pages are in the file" && return 1; }
}

# A source with x-rdma-chunk-size asks once, and writes anywhere in its chunk.
chunk_sizes() {
    receive 0 far && pages_saved 2 && receive 0 apart && pages_saved 2 &&
        OPTIONS=,accept-chunk-size=1M receive 1 far && OPTIONS=,accept-chunk-size=4M receive 0 far
}

# The return path's queue pair cannot write to memory that is registered for the guest's RAM.
return_path_writes() {
    receive "$1" back || return 1
    ! grep . /tmp/peer.log
}

# The source's messages: 0 stream, 1 RAM_BLOCKS_REQUEST, 2 REGISTER_REQUEST, 3 COMPRESS,
# 4 REGISTER_FINISHED, 5 stream, 6 REGISTER_FINISHED, 7 stream. Words: 0 length, 1 type, 2 repeat,
# 3 unused, then the body. Not looked at are the unused ones, and repeat where nothing is counted.
source_words() {
    local status=0 message word words harmless
    # A peer that begins with a bad message is not a source, see strangers.
    for message in 1 2 3 4 5; do
        words="0 1 2 3" harmless=" 3 2 "
        case $message in
            2) words="0 1 2 3 4 5 6 7 8 9" harmless=" 3 7 " ;;
            3) words="0 1 2 3 4 5 6 7 8 9" harmless=" 3 " ;;
        esac
        for word in $words; do
            case $harmless in
                *" $word "*) receive 0 word $message "$word" || status=1 ;;
                *) receive 1 word $message "$word" || status=1 ;;
            esac
        done
    done
    return $status
}

source_order() {
    local status=0 message
    receive 0 skip 3 || status=1 # a page has changed, but no rule is broken
    for message in 4 5 6; do
        receive 1 skip $message || status=1
    done
    for message in 0 1 4 5 6; do
        receive 1 twice $message || status=1
    done
    for message in 1 2 3 4 5 6 7; do
        receive 1 error $message || status=1
    done
    for message in 1 2 3 4 5 6; do
        receive 1 leave $message || status=1
    done
    return $status
}

# The destination's: 0 READY (for the stream), 1 READY, 2 RAM_BLOCKS_RESULT, 3 READY, 4 REGISTER_RESULT, 5
# READY, 6 READY or another REGISTER_RESULT.
destination_words() {
    local status=0 message word
    for message in 0 1 2 3 4 5 6; do
        for word in 0 1; do
            send 1 word $message $word || status=1
        done
        send 0 word $message 3 || status=1
    done
    # The blocks' addresses, offsets and lengths.
    for word in 4 8; do
        send 1 word 2 $word || status=1
    done
    return $status
}

destination_order() {
    local status=0 message
    for message in 0 1 2 3 4 5 6; do
        send 1 twice $message || status=1
        send 1 error $message || status=1
        send 1 leave $message || status=1
    done
    return $status
}

packets_sent() {
    cat /sys/class/infiniband/*/ports/1/hw_counters/sent_pkts
}

# sends_less PACKETS COMMAND...: it must work, and send fewer packets than that.
sends_less() {
    local most=$1 before packets
    shift
    before=$(packets_sent)
    "$@" || return 1
    packets=$(($(packets_sent) - before))
    [ $packets -lt "$most" ] || { echo "$*: $packets packets" && return 1; }
}

# The peer is asked once in a heartbeat whether it is there, and not at each completion of that question.
slow_peers() {
    local status=0 message
    local ram=2048 # packets of 4 KiB for the small guest's 8 MiB, all of which a file's send writes
    for message in 0 1 2 3 4 5; do
        sends_less $((ram + 200)) send 0 slow $message || status=1
    done
    for message in 1 2 3 4 5 6; do
        sends_less 200 receive 0 slow $message || status=1
    done
    return $status
}

# A peer that is not a version-1 source must not disturb a listener that waits for one.
strangers() {
    local receiver status=0
    rm -f "$FILE.new" /tmp/receive.log
    timeout 60 "$VMFERRY" receive "rdma:$LAB_ADDR:5999,connect-timeout=2s" --save "$FILE.new" >/tmp/receive.log 2>&1 &
    receiver=$!
    await_listening /tmp/receive.log
    for how in "version 0" "version 2" "version 12345" "word 0 4" "skip 0" "leave 0" "error 0"; do
        # shellcheck disable=SC2086
        timeout 10 "$PEER" source "$LAB_ADDR" 5999 $how
        status=$?
        case $status in
            2 | 3 | 0 | 1) ;;
            *) echo "$how: the peer ended with $status" && return 1 ;;
        esac
        kill -0 $receiver || { cat /tmp/receive.log && return 1; }
    done
    timeout 20 "$PEER" source "$LAB_ADDR" 5999 || { cat /tmp/receive.log && return 1; }
    wait $receiver && [ -s "$FILE.new" ]
}

check "version 1: a small guest into a file, and out of it" a_migration
check "version 1: a source whose chunks are larger, and one whose are seen to be small" chunk_sizes
check "version 1: a listener survives what is no migration" strangers
check "version 1: a peer that is slow is left in peace" slow_peers
check "version 1: a return path cannot write guest RAM" return_path_writes 0
check "version 1: a source's messages with each field broken" source_words
check "version 1: a source's messages left out, doubled, given up" source_order
check "version 1: a destination's messages with each field broken" destination_words
check "version 1: a destination's messages doubled, given up" destination_order
finish
