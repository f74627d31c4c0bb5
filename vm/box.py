"""The lab's box: a Debian that boots by itself, with the course, its Python packages and JupyterLab in it.

    vm/build-box [--out DIR]      (python -m vm.box)

It is made of nothing but Debian's packages, from where this host's apt gets them, and of wheels, from where pip does.
What comes out is for a classroom without a network: lab.box for Vagrant with libvirt, lab.qcow2 for everything else
that is QEMU, lab.json, the catalogue by which Vagrant checks and adds the box, and SHA256SUMS.

The root file system is reproducible: the same checkout, packages and wheels have the same tree.sha256, which is that of
a tar of the tree in the order of its names. SOURCE_DATE_EPOCH, or else the time of the last commit, is the time of all
that would be newer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vm import root_disk
from vm.root_disk import CONSTRAINTS, ROOT, Unavailable

NAME = "minicontainer/lab"
LIMIT = 30 * 60  # s, for a build; 2 minutes where nothing else runs
SIZE = 8 << 30  # bytes that the disk seems to have
START = 1 << 20  # bytes before the partition: its table, and GRUB
SECTOR = 512
SPACE = 5 << 30  # bytes that a build wants

PACKAGES = (
    "linux-image-cloud-amd64",  # no drivers but virtio's: half the size, and every controller and namespace
    "initramfs-tools",
    "grub-pc-bin",  # with grub2-common's update-grub, for other kernel command lines
    "grub2-common",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "dbus-user-session",
    "libpam-systemd",  # sessions, and with them control groups for an ordinary user
    "openssh-server",
    "sudo",
    "kmod",
    "less",
    "ca-certificates",
    "nano",
    "iputils-ping",
    "linux-libc-dev",
)
"""Beside those of vm/provision.sh."""

VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.provider(:libvirt) { |libvirt| libvirt.disk_bus = "virtio" }
end
"""
INPUTS = (
    "constraints.txt", "pyproject.toml", "Makefile", "vm/box.py", "vm/box_root.sh", "vm/root_disk.py",
    "vm/provision.sh", "minicontainer/cli/launcher.py",
)  # fmt: skip
"""What a box depends on, but for the course, which whoever starts one brings up to date in it."""


@dataclass(frozen=True)
class Box:
    """A box in a directory."""

    directory: Path

    @property
    def disk(self) -> Path:
        """What QEMU boots."""
        return self.directory / "lab.qcow2"

    @property
    def vagrant(self) -> Path:
        """What `vagrant box add` takes, with a word about which version it is."""
        return self.directory / "lab.json"

    @property
    def tree(self) -> str:
        """The hash of the root file system."""
        return (self.directory / "tree.sha256").read_text().strip()

    def check(self, names: Iterable[str] = ("lab.qcow2",)) -> None:
        """Nothing, where these files are what SHA256SUMS says.

        Raises:
            Unavailable: one is not.
        """
        sums = self.directory / "SHA256SUMS"
        try:
            lines = [line.split(maxsplit=1) for line in sums.read_text().splitlines() if line]
            listed = {name.lstrip("*"): digest for digest, name in lines}
            for name in names:
                with (self.directory / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != listed.get(name):
                    raise Unavailable(
                        f"{self.directory / name} has the checksum {found[:12]}…, and {sums} says "
                        f"{(listed.get(name) or 'nothing')[:12]}…: copy it again, or remove it and have it built"
                    )
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.directory} is no box: {error}") from error


def epoch(variables: Mapping[str, str]) -> int:
    """SOURCE_DATE_EPOCH as the environment has it, or the time of the last commit: seconds since 1970."""
    if told := variables.get("SOURCE_DATE_EPOCH"):
        try:
            return int(told)
        except ValueError:
            raise Unavailable(f"SOURCE_DATE_EPOCH={told}: it is a number of seconds") from None
    last = ["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"]
    found = subprocess.run(last, cwd=ROOT, capture_output=True, text=True)
    return int(found.stdout) if found.returncode == 0 and found.stdout.strip() else 1_700_000_000


def cache_directory(variables: Mapping[str, str]) -> Path:
    """Where boxes are kept that nobody has given a place."""
    return root_disk.cache_directory(variables).parent / "box"


def key(release: str) -> str:
    """The name of the box in the cache: another one as soon as anything is different that is slow to bring into it."""
    inputs = [release, *((ROOT / name).read_text() for name in INPUTS)]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


def cached(variables: Mapping[str, str]) -> Box:
    """The box out of the cache, built now if it is not there. Older ones go."""
    release = root_disk.suite()
    cache = cache_directory(variables)
    with root_disk.alone(cache, lambda text: print(f"box: {text}", flush=True)):
        name = key(release)
        if (cache / name).is_dir():
            return Box(cache / name)
        for stale in cache.iterdir():
            if stale.is_dir():
                shutil.rmtree(stale)
        return build(cache / name, release, variables)


def build(place: Path, release: str, variables: Mapping[str, str], limit: float = LIMIT, url: str = "") -> Box:
    """Make a box and put it into `place`, which must not exist: there is all of it or nothing.

    Args:
        place: a directory to be.
        release: the suite, such as bookworm.
        variables: with SOURCE_DATE_EPOCH, or without.
        limit: seconds.
        url: from where it will be served, for the catalogue, in which Vagrant wants a whole one.

    Raises:
        Unavailable: it could not be made.
    """
    root_disk.require(["apt-get", "mmdebstrap", "mke2fs", "setpriv", "unshare", "git", "qemu-img", "tar"])
    begin = time.monotonic()
    until = begin + limit
    temporary = place.parent if os.geteuid() == 0 else Path(tempfile.gettempdir())
    place.parent.mkdir(parents=True, exist_ok=True)
    for directory in (place.parent, temporary):
        root_disk.want_space(directory, SPACE)
    with tempfile.TemporaryDirectory(prefix="build-", dir=temporary, ignore_cleanup_errors=True) as work:
        out = Path(work)
        out.chmod(0o777)  # to an ordinary user's mmdebstrap, which is root in a user namespace, we are another
        since = epoch(variables)
        with step("the course and its wheels"):
            root_disk.copy_checkout(out / "course")
            _wheels(out, until)
        with step(f"{release} and the course in it"):
            _root(out, release, since, until)
        with step("the disk"):
            _boot_sectors(out)
            convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-W", "-o", "compression_type=zstd"]
            root_disk.run("qemu-img", [*convert, str(out / "disk"), str(out / "lab.qcow2")], out, until)
        finished = out / "finished"
        finished.mkdir()
        for name in ("lab.qcow2", "tree.sha256", "kernel"):
            (out / name).rename(finished / name)
        with step("the box"):
            describe(Box(finished), since, url or f"file://{place}")
        unfinished = place.with_name(f"{place.name}.unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(finished, unfinished) if temporary != place.parent else finished.rename(unfinished)
            unfinished.rename(place)
        except OSError as error:
            raise Unavailable(f"the box does not go into {place}: {error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    print(f"box: built in {time.monotonic() - begin:.0f} s: {place}", flush=True)
    return Box(place)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and at its end how long it took."""
    print(f"box: {what} …", flush=True)
    begin = time.monotonic()
    yield
    print(f"box: {what}: {time.monotonic() - begin:.0f} s", flush=True)


def _wheels(out: Path, until: float) -> None:
    """Everything of constraints.txt in `wheels`, which is what `make setup` installs in the box, without a network."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    root_disk.run("pip", [*pip, "-w", str(out / "wheels"), "-r", str(CONSTRAINTS)], out, until)


def _root(out: Path, release: str, since: int, until: float) -> None:
    """Leave in `out` the disk, without what it boots with; and that, as boot.img and core.img."""
    listed = subprocess.run([str(ROOT / "vm" / "provision.sh"), "--list"], capture_output=True, text=True, check=True)
    with (out / "disk").open("wb") as disk:
        disk.truncate(SIZE)
    (out / "disk").chmod(0o666)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME}/{release}/{since}")
    variables = {
        "SOURCE_DATE_EPOCH": str(since), "E2FSPROGS_FAKE_TIME": str(since), "UUID": str(identity),
        "SIZE": str(SIZE - START), "START": str(START),
    }  # fmt: skip
    customize = f'sh "{ROOT}/vm/box_root.sh" "$1"'
    packages = dict.fromkeys([*PACKAGES, *listed.stdout.split()])
    try:
        root_disk.tree(out, release, packages, until, root_disk.INITRAMFS, customize, variables)
    except Unavailable:  # what went wrong in the hook stands before what mmdebstrap says of it
        log = out / "mmdebstrap.log"
        said = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(("I: ", "E: "))]
        print("\n".join(said[-10:]), file=sys.stderr)
        raise


def _boot_sectors(out: Path) -> None:
    """Write GRUB and the partition table before the partition.

    GRUB's boot.img reads the sector after it, whose own list of blocks, made by grub-mkimage, says that the rest of the
    core follows: so both only need to be put there.
    """
    boot, core = (out / "boot.img").read_bytes(), (out / "core.img").read_bytes()
    if SECTOR + len(core) > START:
        raise Unavailable(f"GRUB's core has {len(core)} bytes, and does not go before the partition")
    # Bootable, type Linux, from START to the end; cylinders, heads and sectors are for BIOSes of the last century.
    whole = b"\xfe\xff\xff"
    entry = b"\x80" + whole + b"\x83" + whole + struct.pack("<II", START // SECTOR, (SIZE - START) // SECTOR)
    with (out / "disk").open("r+b") as disk:
        disk.write(boot[:440].ljust(440, b"\0") + b"lab!\0\0" + entry.ljust(64, b"\0") + b"\x55\xaa")
        disk.write(core)


def describe(box: Box, since: int, url: str) -> None:
    """Write beside the disk what others want: Vagrant's box and its catalogue, and the checksums."""
    virtual = SIZE >> 30
    files = {
        "metadata.json": json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": virtual}).encode(),
        "Vagrantfile": VAGRANTFILE.encode(),
    }
    vagrant = box.directory / "lab.box"
    # Not compressed: the disk is, and whoever reads it finds that out.
    with tarfile.open(vagrant, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = box.directory / name
            member.write_bytes(data)
            archive.add(member, name, filter=lambda member: _plain(member, since))
            member.unlink()
        archive.add(box.disk, "box.img", filter=lambda member: _plain(member, since))
    sums = {}
    for name in ("lab.box", "lab.qcow2"):
        with (box.directory / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    provider = {
        "name": "libvirt", "url": f"{url}/lab.box", "checksum_type": "sha256", "checksum": sums["lab.box"],
        "architecture": "amd64", "default_architecture": True,
    }  # fmt: skip
    version = time.strftime("%Y%m%d.%H%M.%S", time.gmtime(since))
    catalogue = {
        "name": NAME,
        "description": f"The lab, with tree {box.tree}",
        "versions": [{"version": version, "providers": [provider]}],
    }
    box.vagrant.write_text(json.dumps(catalogue, indent=2) + "\n")
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    (box.directory / "SHA256SUMS").write_text("".join(lines))


def _plain(member: tarfile.TarInfo, since: int) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode, member.mtime = 0o644, since
    return member


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a box. Returns 0, or 2 after a line that says why there is none."""
    parser = argparse.ArgumentParser(prog="vm/build-box", description="Build the lab's box.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "box", help="where (default: build/box)")
    parser.add_argument("--force", action="store_true", help="in place of the one that is there")
    parser.add_argument("--url", default="", help="from where it will be served (default: from there, as a file)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as on ^C: through every `finally`
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    out = options.out.resolve()
    try:
        release = root_disk.suite()
        with root_disk.alone(out.parent, lambda text: print(f"box: {text}", flush=True)):
            if out.exists() and not options.force:
                raise Unavailable(f"there is a box in {out}; --force builds another in its place")
            url = options.url.rstrip("/") or f"file://{out}"
            box = build(out.with_name(f"{out.name}.new"), release, os.environ, url=url)
            if out.exists():
                shutil.rmtree(out)
            box.directory.rename(out)
            box = Box(out)
    except (Unavailable, OSError) as error:
        print(f"build-box: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("build-box: interrupted; nothing was made", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"box: tree {box.tree}; {', '.join(sorted(os.listdir(out)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
