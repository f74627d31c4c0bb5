# The first process of the test guest: makes of a bare kernel what a test expects of a machine, runs pytest, turns it off.
#
# vm/guest_tests.py has it on a disk beside a file `request` that sets LAB_CGROUP and says what to run. Whatever fails here
# ends this process, and with it the guest. Each command is written to the console (-x), and vm/guest_tests.py shows the last.
set -eux
export PATH=/venv/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8

mounted() { mountpoint -q "$1"; }

# --- A machine ---

mounted /proc || mount -t proc proc /proc
mounted /sys || mount -t sysfs sysfs /sys
mounted /dev || mount -t devtmpfs dev /dev
mounted /run || mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm /dev/mqueue
mounted /dev/pts || mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -sfn "${link#*:}" "/dev/${link%%:*}"
done
chmod 1777 /tmp # on the disk, not a tmpfs: Linux 6.1 has no user xattrs there, which rootless overlays want
hostname guest
ip link set lo up
modprobe virtio_console

# A disk that nobody uses, for limits on what is read and written; and swap, for limits on that.
export LAB_DISK=/dev/vdc LAB_SWAP=/dev/vdd
mkswap "$LAB_SWAP" >/dev/null
swapon "$LAB_SWAP"

# --- Control groups ---

# As distributions had them before 2019: a tree for each controller, but for two pairs, and one of systemd's with none.
v1() {
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    controllers=$(awk '!/^#/ && $4 { print $1 }' /proc/cgroups | grep -vE '^(cpu|cpuacct|net_cls|net_prio)$')
    for tree in cpu,cpuacct net_cls,net_prio $controllers; do
        mkdir "/sys/fs/cgroup/$tree"
        mount -t cgroup -o "$tree" cgroup "/sys/fs/cgroup/$tree"
    done
    for pair in cpu,cpuacct net_cls,net_prio; do
        ln -s "$pair" "/sys/fs/cgroup/${pair%,*}"
        ln -s "$pair" "/sys/fs/cgroup/${pair#*,}"
    done
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
}

. ./request
case $LAB_CGROUP in
v1) v1 ;;
v2) mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup ;;
hybrid)
    v1
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup/unified
    ;;
esac

# --- The tests ---

# What `make setup` would have done: the checkout can be imported from everywhere, and the command is beside its Python.
echo "$PWD" >"$(echo /venv/lib/python3.*/site-packages)/checkout.pth"
python -I minicontainer/cli/launcher.py /venv/bin

out=/dev/vport0p1 results=/dev/vport0p2
echo "$(uname -sr), $(python -V), cgroup $LAB_CGROUP: $(cd /sys/fs/cgroup && cat cgroup.controllers 2>/dev/null || echo *)" >"$out"
set +x
run_tests >"$out" 2>&1 </dev/null && status=0 || status=$?
set -x
cd /run
echo "$status" >status
tar -cf "$results" status $(test ! -f junit.xml || echo junit.xml)
exec busybox poweroff -f
