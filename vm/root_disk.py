"""The root disk of the test guest: Debian with its cloud kernel and a Python, built once and kept in a cache.

It is made by mmdebstrap(1) of the package archive that this host's apt is set up with, and laid into a file by
mke2fs(8). Nothing is mounted where the host could see it, and no loop device is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"

PACKAGES = (
    "linux-image-cloud-amd64",  # no drivers but virtio's: half the size, and every controller and namespace
    "python3",
    "kmod",  # overlay, bridge and nf_tables are modules
    "busybox-static",  # from here on as vm/provision.sh
    "iproute2",
    "linux-libc-dev",  # what the numbers of system calls are compared with
    "nftables",
    "procps",
    "strace",
    "uidmap",
    "util-linux",
)
REQUIREMENTS = ("hypothesis", "psutil", "pytest")
"""What the tests in the guest import, in the versions of constraints.txt."""

SIZE = "3G"  # of the file system; in the cache it takes what is in it, some 400 MB
SPACE = 3 << 30  # bytes that a build wants, where it is made and where it is kept

# What the kernel cannot do without before it has its root. MODULES=list: nothing else, it boots a second earlier.
INITRAMFS = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/guest"
printf '%s\\n' virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/guest"
"""

# The first process in the guest. All that may change from run to run comes on the second disk. The environment that the
# kernel and the initramfs make of the kernel's command line is nothing for tests.
INIT = """\
#!/bin/sh
mkdir /minicontainer && tar -xf /dev/vdb -C /minicontainer && cd /minicontainer && exec env -i sh vm/guest.sh
"""

# mke2fs -d would go down into /proc and /sys, so it is shown a bind mount, which is without the mounts below it. No
# journal: the disk is never written to. lazy_itable_init=0: else the guest's kernel writes the inode tables.
CUSTOMIZE = f"""
set -eu
cp "$1"/boot/vmlinuz-* "$OUT/kernel"
cp "$1"/boot/initrd.img-* "$OUT/initrd"
chroot "$1" python3 -m venv --without-pip /venv
cp -r "$OUT/site/." "$1"/venv/lib/python3.*/site-packages
chroot "$1" /venv/bin/python -m compileall -q /venv/lib
chroot "$1" /venv/bin/python -c 'import {", ".join(REQUIREMENTS)}'
printf %s {shlex.quote(INIT)} >"$1/usr/sbin/guest"
chmod 755 "$1/usr/sbin/guest"
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/boot/* "$1"/initrd.img* "$1"/vmlinuz*
mkdir "$OUT/root"
unshare --mount sh -euc '
    mount --bind "$1" "$OUT/root"
    mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=0 -d "$OUT/root" "$OUT/root.ext4" {SIZE}
' sh "$1"
rmdir "$OUT/root"
"""

PACKAGE_OF = {
    "apt-get": "apt",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "git": "git",
    "tar": "tar",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


SILENCE = "it said nothing"


class Unavailable(Exception):
    """The guest cannot be had on this machine, or not today; the message is one line that says why."""


@dataclass(frozen=True)
class Disk:
    """What a guest boots from. `directory` is its place in the cache."""

    directory: Path

    @property
    def image(self) -> Path:
        """The file system, raw."""
        return self.directory / "root.ext4"

    @property
    def kernel(self) -> Path:
        """For QEMU's -kernel."""
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        """For QEMU's -initrd."""
        return self.directory / "initrd"


def environment() -> dict[str, str]:
    """Ours, with the directories in PATH that an ordinary user's is without."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def require(tools: Iterable[str]) -> None:
    """Nothing, where all these programs are installed.

    Raises:
        Unavailable: naming the package of the first that is not.
    """
    for tool in tools:
        if shutil.which(tool, path=environment()["PATH"]) is None:
            how = f"apt-get install --no-install-recommends {PACKAGE_OF[tool]}"
            raise Unavailable(f"no {tool} in PATH; as root: {how}, or vm/provision.sh for everything")


def suite() -> str:
    """The release of the guest, which is the host's own, since that is what its apt can fetch."""
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or platform.machine() != "x86_64":
        raise Unavailable(
            f"the guest is made of Debian's packages for amd64, and this is {release['ID']} on {platform.machine()}"
        )
    return release["VERSION_CODENAME"]


@contextlib.contextmanager
def alone(cache: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Nobody else builds, removes or boots a disk meanwhile: two guests on two cores would make each other late."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("w")
    except OSError as error:
        raise Unavailable(f"no cache for the root disk: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that uses {cache}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def want_space(place: Path, wanted: int) -> None:
    """Nothing, where so many bytes are free.

    Raises:
        Unavailable: they are not.
    """
    if (free := shutil.disk_usage(place).free) < wanted:
        raise Unavailable(f"a build wants {wanted >> 20} MB, and in {place} {free >> 20} MB are free")


def key(release: str) -> str:
    """The name of the disk in the cache: another one as soon as anything is different of which it is made."""
    inputs = [release, sys.version, CONSTRAINTS.read_text(), Path(__file__).read_text()]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


def find(cache: Path, name: str) -> Disk | None:
    """The disk of that name, if it is in the cache."""
    directory = cache / name
    return Disk(directory) if directory.is_dir() else None


def build(cache: Path, name: str, release: str, timeout: float) -> Disk:
    """Make the disk. Only when it is complete it gets its name.

    An ordinary user's is not made in the cache, because to mmdebstrap, which is root in a user namespace then, that
    user's home may be closed.

    Args:
        cache: the directory of disks. Only one process at a time may be in here.
        name: as `key` says.
        release: the suite, such as bookworm.
        timeout: seconds.

    Raises:
        Unavailable: it could not be made.
    """
    require(["apt-get", "mmdebstrap", "mke2fs", "setpriv", "unshare"])
    place_of_work = cache if os.geteuid() == 0 else Path(tempfile.gettempdir())
    for place in (cache, place_of_work):
        want_space(place, SPACE)
    unfinished = cache / f"{name}.unfinished"
    with tempfile.TemporaryDirectory(prefix="build-", dir=place_of_work, ignore_cleanup_errors=True) as temporary:
        out = Path(temporary)
        out.chmod(0o777)  # the root of that user namespace writes here
        _make(out, release, timeout)
        unfinished.mkdir()
        try:
            files = [str(out / file) for file in ("kernel", "initrd", "root.ext4")]
            copied = subprocess.run(["cp", "--sparse=always", *files, str(unfinished)], capture_output=True, text=True)
            if copied.returncode != 0:
                raise Unavailable(f"the root disk does not go into its cache: {copied.stderr.strip()}")
            unfinished.rename(cache / name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Disk(cache / name)


def _make(out: Path, release: str, timeout: float) -> None:
    """Leave kernel, initrd and root.ext4 in `out`."""
    until = time.monotonic() + timeout
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    run("pip", [*pip, "--target", str(out / "site"), "-c", str(CONSTRAINTS), *REQUIREMENTS], out, until)
    tree(out, release, PACKAGES, until, INITRAMFS, CUSTOMIZE)


def tree(
    out: Path,
    release: str,
    packages: Iterable[str],
    until: float,
    essential: str,
    customize: str,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make a root file system of Debian's packages, have `customize` take out of it what is wanted, and throw it away.

    Args:
        out: a directory for sources.list, logs and results, $OUT to the hooks.
        release: the suite, such as bookworm.
        packages: beside those that every Debian has.
        until: on time.monotonic's clock.
        essential: a shell script, run before most packages are installed. $1 is the root.
        customize: another, run when all are.
        variables: for the environment of both.

    Raises:
        Unavailable: it could not be made.
    """
    sources, settings = out / "sources.list", out / "apt.conf"
    sources.write_text("".join(_archives(release)))
    settings.write_text("".join(_settings()))
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "locale", "man")]
    debian = ["mmdebstrap", "--variant=minbase", "--format=null", f"--include={','.join(packages)}", *excluded]
    debian += [f"--aptopt={settings}", f"--essential-hook={essential}", f"--customize-hook={customize}"]
    debian += [release, "/dev/null", str(sources)]
    if os.geteuid() == 0:  # an ordinary user's makes its own namespaces
        debian = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *debian]
    run("mmdebstrap", debian, out, until, variables)


def run(
    name: str, command: Sequence[str], out: Path, until: float, variables: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Run one of a disk's builders to its end; what it says goes to NAME.log in `out`.

    Raises:
        Unavailable: it failed, or was not ready in time.
    """
    log = out / f"{name}.log"
    begin = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env={**environment(), "OUT": str(out), "TMPDIR": str(out), **variables},
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        status = process.wait(max(0.0, until - begin))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} was not ready within {max(0.0, until - begin):.0f} s: {last_words(log)}") from None
    finally:
        _end(process)
    if status != 0:
        raise Unavailable(f"{name} could not make the root disk: {last_words(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a builder that still runs: first so that it can clear away, and then for good."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, None)):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def _archives(release: str) -> Iterable[str]:
    """Where this host's apt gets that release from, a line of sources.list(5) each."""
    form = "$(ORIGIN)|$(RELEASE)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], capture_output=True, text=True
    )
    found = [line.split("|") for line in listed.stdout.splitlines()]
    # Origin is empty where there has been no apt-get update yet.
    ours = [line for origin, name, line in found if origin in ("Debian", "") and name.startswith(release)]
    if not ours:
        raise Unavailable(f"this host's apt knows no archive with {release}: {listed.stderr.strip() or 'no sources'}")
    return [f"{line}\n" for line in ours]


def _settings() -> Iterable[str]:
    """How this host's apt gets there: proxies, time limits, and what it thinks of old indexes."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    return [line for line in dumped.splitlines(keepends=True) if line.startswith("Acquire::") and '""' not in line]


def copy_checkout(tree: Path) -> None:
    """Copy the checkout as git sees it: what is tracked, with uncommitted changes, and what is new and not ignored.

    Raises:
        Unavailable: this is no checkout.
    """
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True,
    )  # fmt: skip
    if listed.returncode != 0:
        raise Unavailable(f"git cannot list the checkout: {listed.stderr.decode(errors='replace').strip()}")
    for name in {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}:
        if os.path.lexists(ROOT / name):  # removed, and not yet committed
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)


def last_words(log: Path, count: int = 3) -> str:
    """The end of a program's output in one line: its last errors, where they are marked as apt and pip do."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
    return " / ".join((errors or lines)[-count:]) or SILENCE


def cache_directory(variables: Mapping[str, str]) -> Path:
    """Where disks are kept: the XDG base directory specification's place for what can be made again."""
    home = variables.get("XDG_CACHE_HOME") or Path(variables.get("HOME") or Path.home(), ".cache")
    return Path(home, "minicontainer", "vm")
