#!/bin/sh
# Install the system packages that the engine, the labs and the tests need, on Debian 12, Ubuntu 24.04 or later.
#
#   vm/provision.sh           install what is missing, as root or through `sudo -n`
#   vm/provision.sh --check   only say what is missing; exit 1 when something is
#   vm/provision.sh --list    print the packages, one a line
#
# This is the only list of system packages: `make setup`, Vagrant, other VM tools and a bare machine all come here.
# Where everything is installed already it asks dpkg once and needs no network.
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
util-linux      # unshare, nsenter, lsns, findmnt, setpriv: independent witnesses
procps          # ps, sysctl
skopeo          # tests of images: copies them as others do
umoci           # likewise: unpacks them, to compare
pigz            # what the speed of unpacking is compared with
zstd            # tests of compression
strace          # sends the signals of the tests that interrupt a start at each of its system calls
xfsprogs        # mkfs.xfs: a file system that shares blocks, for full clones
qemu-system-x86 # make test-v2: the machine, with SeaBIOS in its dependencies
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

case ${1-} in
--list)
    packages
    exit
    ;;
--check | '') ;;
*)
    printf 'usage: %s [--check | --list]\n' "$0" >&2
    exit 2
    ;;
esac

command -v dpkg-query >/dev/null 2>&1 ||
    die "no dpkg-query: this is not Debian or Ubuntu; install the counterparts of: $(packages | tr '\n' ' ')"

absent=$(missing)
absent=${absent% }
[ -n "$absent" ] || exit 0

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
