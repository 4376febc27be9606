#!/bin/busybox sh
# The first process of the machine. The command it runs is its own arguments; the output of that and its exit status
# leave by the second serial port, so that messages of the kernel cannot get into them.
export PATH=/usr/sbin:/usr/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tmpfs tmpfs /run
busybox ip link set lo up
# Bridges show no packets to netfilter without it, and nothing asks for it.
modprobe br_netfilter
busybox stty -F /dev/ttyS1 -opost
echo "running: $*"
{
    echo "kernel $(busybox uname -r)"
    "$@"
    echo "status $?"
} >/run/output 2>&1
busybox cat /run/output >/dev/ttyS1
busybox poweroff -f
