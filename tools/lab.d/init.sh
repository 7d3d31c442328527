#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# init.sh -- process 1 of a lab host: sets it up, then runs what it is told on its console
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm 2>/dev/null
mount -t tmpfs tmpfs /dev/shm
# The kernel's command line names a folder of the outer machine, which has the other settings.
folder=$(sed -n 's/.*lab\.out=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t hostfs none /mnt -o "$folder"
. /mnt/settings
# This host has a /tmp of its own, with the entries of the outer machine's /tmp that it must see.
mkdir -p /run/kept
for ((i = 0; i < ${#LAB_kept[@]}; i++)); do
    if [ -d "${LAB_kept[i]}" ]; then mkdir "/run/kept/$i"; else touch "/run/kept/$i"; fi
    [ -L "${LAB_kept[i]}" ] && readlink "${LAB_kept[i]}" >"/run/kept/$i.link" && continue
    mount --bind "${LAB_kept[i]}" "/run/kept/$i"
done
mount -t tmpfs tmpfs /tmp
for ((i = 0; i < ${#LAB_kept[@]}; i++)); do
    [ -e "/run/kept/$i.link" ] && ln -s "$(cat "/run/kept/$i.link")" "${LAB_kept[i]}" && continue
    if [ -d "/run/kept/$i" ]; then mkdir "${LAB_kept[i]}"; else touch "${LAB_kept[i]}"; fi
    mount --move "/run/kept/$i" "${LAB_kept[i]}"
done

# perftest divides by a clock rate that this kernel does not tell.
sed '$ a cpu MHz\t\t: 2000.000' /proc/cpuinfo >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo

ip link set lo up
peer=$LAB_host
if [ "$LAB_hosts" = 1 ]; then
    device=v0
    ip link add v0 mtu 9000 type veth peer name v1 mtu 9000
    ip link set v1 up
else
    device=vec0
    ip link set vec0 mtu 9000
    peer=$((3 - LAB_host))
fi
sysctl -qw net.ipv6.conf.$device.accept_dad=0
ip address add "10.77.0.$LAB_host/24" dev $device
ip address add "fd77::$LAB_host/64" dev $device nodad
ip link set $device up
rdma link add "${LAB_device}0" type "$LAB_device" netdev $device || echo "no RDMA device" >/mnt/failed
ulimit -l unlimited
export LAB_HOST=$LAB_host LAB_ADDR=10.77.0.$LAB_host LAB_PEER=10.77.0.$peer
export LAB_ADDR6=fd77::$LAB_host LAB_PEER6=fd77::$peer LAB_DEVICE=${LAB_device}0 LAB_OUT=/mnt
export LAB_NETDEV=$device HOME=/run TMPDIR=/dev/shm
touch /mnt/up

# Each line on the console is the number of a command to run beside the others; an empty one makes
# the kernel look at its console.
while read -r id; do
    [ "$id" = off ] && break
    [ -n "$id" ] || continue
    (
        cd "$LAB_cwd" || exit 1
        bash "/mnt/cmd/$id" </dev/null >"/mnt/cmd/$id.out" 2>&1
        echo $? >"/mnt/cmd/$id.rc.new"
        mv "/mnt/cmd/$id.rc.new" "/mnt/cmd/$id.rc"
    ) &
done
dmesg >/mnt/dmesg
poweroff -f
