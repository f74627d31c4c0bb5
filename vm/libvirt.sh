# Run a command beside a libvirtd of its own, of which this host notices nothing. As root:
#
#   unshare --net --mount --pid --fork --kill-child --mount-proc sh vm/libvirt.sh DIRECTORY COMMAND …
#
# libvirt makes a bridge, starts dnsmasq, writes firewall rules and switches forwarding on: all that is in the network
# namespace, and its configuration, sockets and machines are in DIRECTORY, mounted over the host's. When COMMAND ends, so
# does everything in the PID namespace. `set -e` and what the daemons write to DIRECTORY/log say what is wrong.
set -eu
directory=$1
shift
mount --make-rprivate /
ip link set lo up
mount -t sysfs sysfs /sys # of this network namespace
mkdir -p "$directory"/lib/images "$directory"/etc "$directory"/log "$directory"/pool
mount -t tmpfs tmpfs /run
mount --bind "$directory/lib" /var/lib/libvirt
mount --bind "$directory/etc" /etc/libvirt
for place in cache log; do mount -t tmpfs tmpfs "/var/$place/libvirt"; done
mkdir -p /run/libvirt /run/lock

cat >/etc/libvirt/qemu.conf <<'END'
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
END
printf '%s\n' 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' >/etc/libvirt/libvirtd.conf
for daemon in virtlogd libvirtd; do
    setsid "$daemon" >"$directory/log/$daemon" 2>&1 </dev/null &
done
export LIBVIRT_DEFAULT_URI=qemu:///system
tries=0
until virsh --quiet list >"$directory/log/virsh" 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { cat "$directory/log/virsh" "$directory/log/libvirtd" >&2; exit 1; }
    sleep 1
done
virsh --quiet pool-define-as default dir --target "$directory/pool" >/dev/null
virsh --quiet pool-start default >/dev/null
status=0
"$@" </dev/null || status=$?
exit "$status"
