#!/bin/sh
# Install the system packages that the engine, the labs and the tests need, on Debian 12, Ubuntu 24.04 or later.
#
#   vm/provision.sh           install what is missing, as root or through `sudo -n`
#   vm/provision.sh --check   only say what is missing; exit 1 when something is
#   vm/provision.sh --list    print the packages, one a line
#   vm/provision.sh --lab     all of it, and make this machine the lab: the course in /opt/minicontainer, its notebooks
#                             in /srv/notebooks, and JupyterLab on port 8888 of every address; as root, with systemd
#   vm/provision.sh --cgroup v1|v2   at the next boot, have control groups of this version; as root, with GRUB
#
# This is the only list of system packages: `make setup`, Vagrant, other VM tools and a bare machine all come here.
# Where everything is installed already it asks dpkg once and needs no network. Nothing is done twice: what is as it should
# be is left alone, and a student's notebooks always are.
set -eu

packages() {
    # Before each # the package, after it who needs it.
    sed 's/ *#.*//; /^$/d' <<'LIST'
busybox-static  # the `busybox` image is made of it
uidmap          # newuidmap and newgidmap, for rootless containers with more than one user
python3         # 3.11 or later
python3-venv    # make setup
git             # make setup in a clone
make            # the Makefile
gcc             # the C program that the engine's start time is compared with
libc6-dev       # its headers
iproute2        # `ip`: an independent witness for namespaces and links
nftables        # `nft` and libnftables: address translation and published ports
passt           # `pasta`: a network for containers of an ordinary user
slirp4netns     # the same, elsewhere
rsync           # brings the course into a VM
util-linux      # unshare, nsenter, lsns, findmnt, setpriv: independent witnesses
procps          # ps, sysctl
skopeo          # tests of images: copies them as others do
umoci           # likewise: unpacks them, to compare
pigz            # what the speed of unpacking is compared with
zstd            # tests of compression
strace          # sends the signals of the tests that interrupt a start at each of its system calls
xfsprogs        # mkfs.xfs: a file system that shares blocks, for full clones
qemu-system-x86 # make test-v2: the machine, with SeaBIOS in its dependencies
qemu-utils      # labs vm: qemu-img, for its disks
openssh-client  # labs vm: ssh
mmdebstrap      # make test-v2: what its root disk is made with,
e2fsprogs       # and mke2fs, for the file system on it
debootstrap     # tests of `image make`, as mmdebstrap is
docker-registry # a registry for the tests, which skopeo fills and empties as well
openssl         # their certificates, and the tokens of the registry
LIST
}

# The packages of the list that are not installed, each followed by a space.
missing() {
    installed=" $(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' 2>/dev/null |
        sed -n 's/^[ihu]i *//p' | tr '\n' ' ')"
    for package in $(packages); do
        case $installed in
        *" $package "*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

die() {
    printf 'provision.sh: %s\n' "$1" >&2
    exit 1
}

# Run a command as root; apt must never stop to ask a question.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi </dev/null
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo && sudo -n true; } >/dev/null 2>&1 </dev/null
}

install_packages() {
    command -v dpkg-query >/dev/null 2>&1 ||
        die "no dpkg-query: this is not Debian or Ubuntu; install the counterparts of: $(packages | tr '\n' ' ')"

    absent=$(missing)
    absent=${absent% }
    [ -n "$absent" ] || return 0

    how="apt-get update && apt-get install --no-install-recommends $absent"
    if [ "${1-}" = --check ]; then
        die "missing: $absent; as root: $how"
    fi
    can_be_root || die "missing: $absent; not root and no password-less sudo, so do as root: $how"

    printf 'provision.sh: installing %s\n' "$absent"
    # shellcheck disable=SC2086  # a list of words, none with a space or a wildcard in it
    if as_root apt-get update -q && as_root apt-get install -y -q --no-install-recommends $absent; then
        absent=$(missing)
        [ -z "$absent" ] || die "apt-get is done, and still missing: $absent"
    else
        die "apt-get failed (see above); missing: $absent; as root: $how"
    fi
}

# --- The lab ---

course=/opt/minicontainer
notebooks=/srv/notebooks

# Standard input becomes the file $1 with the mode $2; true if that changed anything.
write() {
    new=$(mktemp)
    cat >"$new"
    if cmp -s "$new" "$1"; then
        rm "$new"
        return 1
    fi
    install -m "$2" "$new" "$1.new"
    mv "$1.new" "$1"
    rm "$new"
}

lab() {
    [ "$(id -u)" -eq 0 ] || die "--lab changes the whole machine: as root, please"
    command -v systemctl >/dev/null 2>&1 || die "--lab needs systemd; without it \`make lab\` serves the notebooks"
    source=$(cd "$(dirname "$0")/.." && pwd)
    changed=

    # By content, not by time: a checkout that was made later must not have a virtual environment made anew, which would
    # need a network. Read by a login shell's umask, the course would not be an ordinary user's to read.
    if [ "$source" != "$course" ]; then
        mkdir -p "$course"
        copied=$(rsync --recursive --links --perms --chmod=Fgo+r,Dgo+rx --checksum --delete --out-format=%n \
            --exclude=/.git --exclude=/.venv --exclude=/build --exclude=/.vagrant --exclude=__pycache__ \
            "$source/" "$course/" | grep -v '/$') || true
        [ -z "$copied" ] || changed=yes
    fi
    make -C "$course" --no-print-directory setup || die "make setup failed (see above)"

    mkdir -p "$notebooks"
    rsync --recursive --ignore-existing "$course/notebooks/" "$notebooks/"

    write /usr/local/bin/lab-url 755 <<'END' || true
#!/bin/sh
# Print where the notebooks are, once they are there, within so many seconds.
until=$(($(date +%s) + ${1:-120}))
while
    url=$(journalctl --boot --unit=lab --output=cat --no-pager 2>/dev/null |
        sed -n 's/^The notebooks are at //p' | tail -n 1)
    [ -z "$url" ]
do
    [ "$(date +%s)" -lt "$until" ] || { systemctl status --no-pager --lines=10 lab >&2; exit 1; }
    sleep 1
done
echo "$url"
END
    if write /etc/systemd/system/lab.service 644 <<END; then changed=yes; fi
[Unit]
Description=The course's notebooks in JupyterLab
After=network.target

[Service]
WorkingDirectory=$course
Environment=HOME=/root LANG=C.UTF-8
ExecStart=$course/.venv/bin/python -m labs.serve --notebooks $notebooks --address 0.0.0.0 --timeout 600
Restart=on-failure
Delegate=yes

[Install]
WantedBy=multi-user.target
END
    for command in labs minicontainer minicontainer-runtime; do
        [ "$(readlink "/usr/local/bin/$command")" = "$course/.venv/bin/$command" ] ||
            ln -sfn "$course/.venv/bin/$command" "/usr/local/bin/$command"
    done
    systemctl is-enabled --quiet lab 2>/dev/null || systemctl --quiet enable lab
    [ -d /run/systemd/system ] || return 0 # in a root file system that is being made
    [ -z "$changed" ] || systemctl daemon-reload
    if [ -n "$changed" ]; then systemctl restart lab; else systemctl start lab; fi
    printf 'The notebooks are at %s\n' "$(lab-url 600)"
}

# --- Control groups ---

cgroup() {
    [ "$(id -u)" -eq 0 ] || die "--cgroup changes the kernel's command line: as root, please"
    command -v update-grub >/dev/null 2>&1 || die "--cgroup is for machines that GRUB boots, and there is no update-grub"
    case $1 in
    v2) words= ;;
    v1)
        version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
        [ "$version" -lt 256 ] ||
            die "this machine's systemd, $version, does not boot on cgroup v1 any more; Debian 12's does"
        words=' systemd.unified_cgroup_hierarchy=0'
        ;;
    *) die "--cgroup $1: it is v1 or v2" ;;
    esac
    mkdir -p /etc/default/grub.d
    if write /etc/default/grub.d/zz-lab-cgroup.cfg 644 <<END; then
# Written by provision.sh --cgroup $1.
GRUB_CMDLINE_LINUX="\$GRUB_CMDLINE_LINUX swapaccount=1 cgroup_enable=memory$words"
END
        update-grub 2>/dev/null || die "update-grub failed"
        printf 'provision.sh: control groups are %s from the next boot on\n' "$1"
    fi
}

case ${1-} in
--list) packages ;;
--check | '') install_packages "${1-}" ;;
--lab)
    install_packages
    lab
    ;;
--cgroup) cgroup "${2-}" ;;
*)
    printf 'usage: %s [--check | --list | --lab | --cgroup v1|v2]\n' "$0" >&2
    exit 2
    ;;
esac
