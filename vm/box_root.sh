# Make of a root file system of Debian's packages the lab's: mmdebstrap's customize hook for vm/box.py. $1 is the root.
#
# In the environment: OUT, a directory with the checkout in `course` and wheels in `wheels`, where the disk is left;
# SOURCE_DATE_EPOCH, since when nothing is newer; UUID, SIZE and START, of the file system and in bytes.
set -eu
umask 022
root=${1:?the root of the file system that is being made}

# --- What a machine has ---

chroot "$root" useradd --create-home --shell /bin/bash vagrant
printf 'vagrant ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"
mkdir -m 700 "$root/home/vagrant/.ssh"
# The key that everybody has, by which Vagrant enters once, to put its own in its place.
echo 'ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key' \
    >"$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
chmod 600 "$root/home/vagrant/.ssh/authorized_keys"

echo lab >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lab\n::1 localhost\n' >"$root/etc/hosts"
echo '/dev/vda1 / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
mkdir -p "$root/etc/systemd/network"
# By its name: a `Type=ether` would also take the bridges and veths that the labs make.
printf '[Match]\nName=eth*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/lab.network"
printf 'UseDNS no\n' >"$root/etc/ssh/sshd_config.d/lab.conf"

# At its first boot the machine makes its own host keys. Where QEMU hands it a user's key, that is the only one from then on.
cat >"$root/etc/systemd/system/lab-keys.service" <<'END'
[Unit]
Description=Host keys of this machine's own, and the key of its user
Before=ssh.service
After=local-fs.target

[Service]
Type=oneshot
# Of the fast kind alone: another takes 15 s without the processor's help.
ExecStart=/bin/sh -c '[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStart=-/usr/sbin/modprobe qemu_fw_cfg
ExecStart=/bin/sh -c 'key=/sys/firmware/qemu_fw_cfg/by_name/opt/minicontainer/key/raw; [ ! -e $key ] || install -o vagrant -g vagrant -m 600 $key /home/vagrant/.ssh/authorized_keys'

[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl --quiet enable lab-keys ssh systemd-networkd systemd-resolved
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer fstrim.timer

# --- The course ---

mkdir -p "$root/opt" "$root/wheels"
cp -a "$OUT/course" "$root/opt/minicontainer"
cp "$OUT/wheels/"* "$root/wheels"
# Of our environment nothing: where pip finds packages here, and which Python make is to take, is not so there.
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_CONFIG_FILE=/dev/null \
    PIP_NO_CACHE_DIR=1 sh /opt/minicontainer/vm/provision.sh --lab
rm -rf "$root/wheels"

# --- The boot loader ---

# Its core is written by vm/box.py between the partition table and the partition: nothing needs to be mounted for that.
mkdir -p "$root/boot/grub" "$root/etc/default/grub.d"
cat >"$root/etc/default/grub.d/lab.cfg" <<'END'
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_SUBMENU=true
GRUB_CMDLINE_LINUX="net.ifnames=0 console=ttyS0"
GRUB_CMDLINE_LINUX_DEFAULT=quiet
END
cat >"$root/boot/grub/grub.cfg" <<END
linux /vmlinuz root=/dev/vda1 ro net.ifnames=0 console=ttyS0 swapaccount=1 cgroup_enable=memory quiet
initrd /initrd.img
boot
END
chroot "$root" grub-mkimage --format=i386-pc --output=/core.img --prefix='(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal linux search search_fs_uuid search_label configfile echo test loadenv gzio sleep
mv "$root/core.img" "$OUT/core.img"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$OUT/boot.img"
cp "$root"/boot/vmlinuz-* "$OUT/kernel" # for trying out an accelerator

# --- What is different in each run, or of no use ---

rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/root/.cache
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/etc/resolv.conf
rm -f "$root"/var/cache/ldconfig/aux-cache "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/sub?id-
rm -f "$root"/var/lib/systemd/random-seed "$root"/var/lib/systemd/catalog/database
find "$root/var/log" -type f -delete
rm -rf "$root/var/log/journal"
find "$root/tmp" "$root/var/tmp" -mindepth 1 ! -name 'mmdebstrap.apt.conf.*' -exec rm -rf {} +
# By that file mmdebstrap's apt, which clears up after us, knows that it is about this root: without it, it would clear this
# host's lists of packages. It comes back at the end.
mv "$root"/tmp/mmdebstrap.apt.conf.* "$OUT"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: >"$root/etc/machine-id"

# --- The disk ---

# mke2fs -d would go down into /proc and /sys, so it is shown a bind mount, which is without the mounts below it.
mkdir "$OUT/root"
unshare --mount sh -euc '
    mount --bind "$1" "$OUT/root"
    cd "$OUT/root"
    find . -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    find . -mindepth 1 -print0 | LC_ALL=C sort -z | tar --create --no-recursion --null --files-from=- --numeric-owner \
        --format=posix --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include=security.capability |
        sha256sum | cut -d" " -f1 >"$OUT/tree.sha256"
    cd /
    mke2fs -q -t ext4 -O ^metadata_csum_seed,^orphan_file -U "$UUID" -E "hash_seed=$UUID,lazy_itable_init=1,offset=$START" \
        -d "$OUT/root" "$OUT/disk" "$((SIZE / 1024))k"
' sh "$root"
rmdir "$OUT/root"
mv "$OUT"/mmdebstrap.apt.conf.* "$root/tmp"
