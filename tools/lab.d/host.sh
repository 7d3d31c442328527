# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# host.sh -- this machine's own RDMA device, or an rxe on one of its network devices

# "device netdev" of the first RDMA link whose network device has an address.
own_link() {
    local line device netdev
    rdma link 2>/dev/null | while read -r line; do
        device=$(sed -n 's/^link \([^/ ]*\).*/\1/p' <<<"$line")
        netdev=$(sed -n 's/.* netdev \([^ ]*\).*/\1/p' <<<"$line")
        if [ -n "$netdev" ] && [ -n "$(own_address "$netdev" 4)" ]; then
            echo "$device $netdev"
            break
        fi
    done
}

own_address() {
    ip -o -"$2" address show dev "$1" scope global | awk '{ sub("/.*", "", $4); print $4; exit }'
}

add_rxe() {
    local netdev
    netdev=$(ip -o -4 address show scope global | awk '{ print $2; exit }')
    [ -n "$netdev" ] && modprobe rdma_rxe 2>/dev/null &&
        rdma link add vmferry0 type rxe netdev "$netdev" 2>/dev/null
}

lab_exec() {
    local device netdev
    [ "$HOSTS" = 1 ] || die "--lab=host has one host: this machine"
    [ -n "$(own_link)" ] || add_rxe || true
    read -r device netdev <<<"$(own_link)"
    [ -n "${netdev:-}" ] || die "this machine has no RDMA device with an address, and no rdma_rxe module: use --lab=uml"
    LAB_HOST=1 LAB_DEVICE=$device LAB_NETDEV=$netdev LAB_OUT=$(mktemp -d)
    LAB_ADDR=$(own_address "$netdev" 4) LAB_ADDR6=$(own_address "$netdev" 6)
    LAB_PEER=$LAB_ADDR LAB_PEER6=$LAB_ADDR6
    export LAB_HOST LAB_DEVICE LAB_NETDEV LAB_OUT LAB_ADDR LAB_ADDR6 LAB_PEER LAB_PEER6
    local status=0
    timeout "$TIMEOUT" "${REST[@]}" || status=$?
    rm -rf "$LAB_OUT"
    return $status
}
