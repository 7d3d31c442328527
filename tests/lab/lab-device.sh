#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# lab-device.sh -- the RDMA device and its addresses come, go and are not there; run by tools/lab exec
set -uo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source=tests/support/checks.sh
. "$HERE/../support/checks.sh"
BUILD=${VMFERRY_BUILD:?where the build is}
VMFERRY=$BUILD/tools/vmferry
export VMFERRY_PLUGIN_PATH=$BUILD/rdma
PORT=7000
WORK=/dev/shm/lab-device
mkdir -p $WORK
# The time for whatever must end at once, and a time-out that is surely longer.
SOON=20 LONG=timeout=60s

# listen HOST [OPTIONS]: a listener on the next port; its output in $WORK/destination.
listen() {
    PORT=$((PORT + 1))
    rm -f $WORK/destination
    timeout 100 "$VMFERRY" bench --listen "rdma:$1:$PORT${2:-}" >$WORK/destination 2>&1 &
    LISTENER=$!
    await_listening $WORK/destination
}

source_run() { # HOST OPTIONS [ARGUMENT...]
    local host=$1 options=$2
    shift 2
    timeout 100 "$VMFERRY" bench "rdma:$host:$PORT$options" --verify --progress none "$@"
}

# A migration of minutes, in the background. Returns while rounds are sent.
long_run() { # OPTIONS [ROUNDS]
    timeout 100 "$VMFERRY" bench "rdma:$LAB_ADDR:$PORT$1" --progress none --ram 16M --rounds "${2:-100000}" --dirty 30 \
        >$WORK/source 2>&1 &
    SOURCE=$!
    for _ in $(seq 100); do
        kill -0 $SOURCE 2>/dev/null || break
        [ "$(rdma resource show qp | grep -c 'type RC')" -ge 6 ] && sleep 1 && kill -0 $SOURCE && return 0
        sleep 0.1
    done
    kill $SOURCE
    echo "the source does not come so far" && cat $WORK/source && return 1
}

# ends SECONDS PID: the process ends in time; its exit status is returned (125: it does not end).
ends() {
    local deadline=$((SECONDS + $1))
    while kill -0 "$2" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || return 125
        sleep 0.1
    done
    wait "$2"
}

# stop PID: ends a process that should have ended before; the pid is timeout's.
stop() {
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}

says() { # FILE PATTERN
    grep -qE "$2" "$WORK/$1" && return 0
    echo "the $1 does not say /$2/:"
    cat "$WORK/$1"
    return 1
}

device_back() {
    rdma link show | grep -q rxe0 || rdma link add rxe0 type rxe netdev "$LAB_NETDEV"
}

transfer() { # LISTEN-HOST
    local status=0
    listen "$1" && source_run "$LAB_ADDR" ",channels=2" --ram 4M || status=1
    stop $LISTENER
    [ $status = 0 ] || sed 's/^/destination: /' $WORK/destination
    return $status
}

# --- addresses ---

another_address() {
    local status=0
    listen "$LAB_ADDR" ",$LONG" && long_run ",$LONG,channels=2" 400 || return 1
    ip address add 10.9.9.9/32 dev "$LAB_NETDEV"
    # Both control threads are needed for that.
    ends 90 "$SOURCE" || { echo "the run does not end well" && status=1 && stop "$SOURCE"; }
    ip address delete 10.9.9.9/32 dev "$LAB_NETDEV"
    cat $WORK/source $WORK/destination
    stop $LISTENER
    return $status
}

# The device has events before the process starts, and while it waits.
address_comes_back() { # LISTEN-HOST
    local status=0
    listen "$1" ",$LONG" || return 1
    ip address delete "$LAB_ADDR/24" dev "$LAB_NETDEV"
    ip address add "$LAB_ADDR/24" dev "$LAB_NETDEV"
    sleep 1
    source_run "$LAB_ADDR" ",$LONG,channels=2" --ram 4M || status=1
    stop $LISTENER
    sed 's/^/destination: /' $WORK/destination
    return $status
}

address_removed() {
    local status=0 said="address $LAB_ADDR is gone"
    listen "$LAB_ADDR" ",$LONG" && long_run ",$LONG,channels=2" || return 1
    ip address delete "$LAB_ADDR/24" dev "$LAB_NETDEV"
    ends $SOON "$SOURCE"
    [ $? = 1 ] || { echo "the source does not end with status 1" && status=1 && stop "$SOURCE"; }
    ends $SOON "$LISTENER" # its device has failed, so it does not go on
    [ $? = 1 ] || { echo "the destination does not end with status 1" && status=1 && stop $LISTENER; }
    ip address add "$LAB_ADDR/24" dev "$LAB_NETDEV"
    # The side that noticed it first may have told the other one.
    says source "$said" && says destination "$said|refused|lost|closed" || status=1
    return $status
}

# --- the device ---

removed_in_migration() { # OPTIONS
    local status=0 removal
    listen "$LAB_ADDR" ",$LONG" && long_run ",$LONG$1" || return 1
    rdma link delete rxe0 >$WORK/removal 2>&1 &
    removal=$!
    ends $SOON "$SOURCE"
    [ $? = 1 ] || { echo "the source does not end with status 1" && status=1 && stop "$SOURCE"; }
    says source 'RDMA device rxe0 was removed' || status=1
    ends $SOON "$LISTENER"
    [ $? = 1 ] || { echo "the destination does not end with status 1" && status=1 && stop $LISTENER; }
    says destination 'RDMA device rxe0 was removed' || status=1
    ends $SOON $removal || { echo "rdma link delete does not return" && status=1; }
    device_back
    return $status
}

removed_when_idle() { # LISTEN-HOST OPTIONS PATTERN
    local status=0 removal
    listen "$1" "$2" || return 1
    sleep 0.5
    rdma link delete rxe0 >$WORK/removal 2>&1 &
    removal=$!
    ends $SOON $removal || { echo "rdma link delete waits for the listener" && status=1; }
    says destination "$3" || status=1
    if [ "$1" = '[::]' ]; then
        device_back
        sleep 0.5
        source_run "$LAB_ADDR" ",channels=2" --ram 4M || status=1
        stop $LISTENER
    else
        ends $SOON "$LISTENER"
        [ $? = 1 ] || { echo "the listener does not end with status 1" && status=1 && stop $LISTENER; }
        ends $SOON $removal || echo "rdma link delete does not return even now"
        device_back
    fi
    return $status
}

# --- no device ---

HERE_IS="RDMA devices: .*rxe0 with .*$LAB_ADDR"

loopback() { # HOST: neither side can use it, and both say which addresses they could
    local status=0
    fails_saying "$HERE_IS" timeout 30 "$VMFERRY" bench --listen "rdma:$1:4970" || status=1
    fails_saying "$HERE_IS" timeout 60 "$VMFERRY" bench "rdma:$1:4970,connect-timeout=20s" --ram 4M || status=1
    return $status
}

closed_device() {
    local status=0 user=(setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all)
    local says='/dev/infiniband/uverbs0 cannot be opened \(Permission denied\)'
    chmod 666 /dev/infiniband/rdma_cm && chmod 600 /dev/infiniband/uverbs0
    fails_saying "$says" "${user[@]}" timeout 60 "$VMFERRY" bench --listen "rdma:$LAB_ADDR:4971" || status=1
    fails_saying "$says" "${user[@]}" timeout 60 "$VMFERRY" bench "rdma:$LAB_ADDR:4971" --ram 4M || status=1
    chmod 666 /dev/infiniband/uverbs0
    return $status
}

silent_name_server() {
    local status=0
    echo 'nameserver 192.0.2.53' >$WORK/resolv.conf
    mount --bind $WORK/resolv.conf /etc/resolv.conf
    ip route add 192.0.2.53/32 dev "$LAB_NETDEV" # nobody answers there
    fails_saying 'looking up host "vm-target.example.net": no answer in time' \
        timeout 60 "$VMFERRY" bench "rdma:vm-target.example.net:4972,connect-timeout=1s" --ram 4M || status=1
    fails_saying 'looking up host "vm-target.example.net": no answer in time' \
        timeout 60 "$VMFERRY" bench --listen "rdma:vm-target.example.net:4972,connect-timeout=1s" || status=1
    ip route delete 192.0.2.53/32 dev "$LAB_NETDEV"
    umount /etc/resolv.conf
    return $status
}

check "127.0.0.1: no RDMA device has it, these there are" loopback 127.0.0.1
check "::1: no RDMA device has it, these there are" loopback "[::1]"
check "a device that may not be opened: its file is named" closed_device
check "a name server that does not answer: the connect-timeout ends it" silent_name_server
check "another address on the device changes nothing" another_address
check "the address goes and comes back under an idle listener" address_comes_back "$LAB_ADDR"
check "the address goes and comes back under a listener on any" address_comes_back "[::]"
check "the address goes in a migration: the source says so" address_removed
check "the device is removed in a migration" removed_in_migration ",channels=4"
check "the device is removed in a migration with pinned RAM" \
    removed_in_migration ",channels=2,registration=pin-all"
check "the device is removed under an idle listener on its address" \
    removed_when_idle "$LAB_ADDR" "" 'rxe0 was removed: nothing can arrive'
check "the device is removed under an idle listener on any address" \
    removed_when_idle "[::]" "" '^listening'
check "the device is removed under a listener with RAM pinned ahead" \
    removed_when_idle "$LAB_ADDR" ",registration=pin-all" 'rxe0 was removed: nothing can arrive'
check "the device is back: a run works" transfer "$LAB_ADDR"
finish
