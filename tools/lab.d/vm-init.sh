#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# vm-init.sh -- first process of the virtual machine: modules, the outer file system, the command
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module" 2>/dev/null
done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose root /mnt || poweroff -f
mkdir -p /out /kept
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /out || poweroff -f
# The machine has a /tmp of its own, with the entries of the outer machine's /tmp that it must see.
while read -r path; do
    mkdir -p "/kept/${path#/tmp/}"
    mount -o bind "/mnt$path" "/kept/${path#/tmp/}"
done </out/kept
mount -t tmpfs tmpfs /mnt/tmp
while read -r path; do
    mkdir -p "/mnt$path"
    mount --move "/kept/${path#/tmp/}" "/mnt$path"
done </out/kept
mount -t tmpfs tmpfs /mnt/run
for folder in proc sys dev; do
    mount --move /$folder /mnt/$folder
done
mkdir -p /mnt/dev/shm /mnt/run/out
mount -t tmpfs tmpfs /mnt/dev/shm
mount --move /out /mnt/run/out
cp /bin/busybox /mnt/run/busybox
cat >/mnt/run/start <<'START'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
ip link add v0 mtu 9000 type veth peer name v1 mtu 9000
ip link set v1 up
sysctl -qw net.ipv6.conf.v0.accept_dad=0
ip address add 10.77.0.1/24 dev v0
ip address add fd77::1/64 dev v0 nodad
ip link set v0 up
rdma link add rxe0 type rxe netdev v0
ulimit -l unlimited
export LAB_HOST=1 LAB_ADDR=10.77.0.1 LAB_PEER=10.77.0.1 LAB_ADDR6=fd77::1 LAB_PEER6=fd77::1
export LAB_DEVICE=rxe0 LAB_NETDEV=v0 LAB_OUT=/run/out HOME=/run
touch /run/out/up
bash /run/out/command </dev/null >/run/out/output 2>&1
echo $? >/run/out/rc.new
dmesg >/run/out/dmesg
mv /run/out/rc.new /run/out/rc
sync
/run/busybox poweroff -f
START
# Not a chroot, because the kernel allows no user namespaces in one.
exec switch_root /mnt /bin/bash /run/start
