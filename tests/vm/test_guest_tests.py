"""`make test-v2` up to the point where a machine would boot: what it asks for, what it refuses, what it leaves behind.

QEMU and mmdebstrap are shell scripts here. That the real ones work is seen by whoever runs `make test-v2`.
"""

from __future__ import annotations

import os
import platform
import select
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vm import guest_tests, root_disk
from vm.root_disk import Disk

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.freedesktop_os_release()["ID"] != "debian",
    reason="the guest is made of Debian's packages for amd64",
)


@dataclass
class Bench:
    """A place with nothing in it but a cache, a directory for temporary files, and a PATH with chosen programs."""

    directory: Path

    def __post_init__(self) -> None:
        for name in ("bin", "cache", "tmp"):
            (self.directory / name).mkdir()
        for name in ("setpriv", "unshare", "git", "apt-get", "apt-config", "cp", "sh", "sleep", "mke2fs"):
            found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
            assert found, name
            (self.directory / "bin" / name).symlink_to(found)

    def has(self, program: str, text: str) -> None:
        """A program in PATH that is a shell script."""
        path = self.directory / "bin" / program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def has_disk(self) -> None:
        """A root disk in the cache, from which nothing could boot."""
        disk = Disk(root_disk.cache_directory(self.variables()) / root_disk.key(root_disk.suite()))
        disk.directory.mkdir(parents=True)
        for file in (disk.image, disk.kernel, disk.initrd):
            file.touch()

    def variables(self, **others: str) -> dict[str, str]:
        place = {"XDG_CACHE_HOME": f"{self.directory}/cache", "TMPDIR": f"{self.directory}/tmp"}
        return {"PATH": f"{self.directory}/bin", **place, **others}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """The program, with nothing in its environment but what is of this bench."""
        program = "import pathlib, sys; from vm import guest_tests\n"
        program += f"guest_tests.REPORTS = pathlib.Path({str(self.directory)!r}, 'reports')\n"
        program += "sys.exit(guest_tests.main(sys.argv[1:]))"
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], cwd=ROOT, env=self.variables(**variables), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit status, output, errors; and nothing is left but the lock and what is whole."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=30)
        self.is_clean()
        return process.returncode, out, err

    def is_clean(self) -> None:
        """No temporary file, and in the cache the lock, and a disk only if it is complete."""
        assert list((self.directory / "tmp").iterdir()) == []
        for entry in (self.directory / "cache").glob("minicontainer/vm/*"):
            assert entry.name == "lock" or sorted(os.listdir(entry)) == ["initrd", "kernel", "root.ext4"], entry


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_disk_is_another_when_anything_is_different_of_which_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [root_disk.key("bookworm"), root_disk.key("trixie")]
    monkeypatch.setattr(root_disk, "CONSTRAINTS", tmp_path / "constraints.txt")
    for pin in ("pytest==9.2.0", "pytest==9.2.1", "pytest==9.2.1"):
        root_disk.CONSTRAINTS.write_text(pin)
        names.append(root_disk.key("bookworm"))
    monkeypatch.setattr(root_disk, "__file__", str(tmp_path / "constraints.txt"))  # the builder itself
    names.append(root_disk.key("bookworm"))
    assert names[3] == names[4]
    assert len(set(names)) == len(names) - 1


def test_what_cannot_be_done_is_said_in_one_line(bench: Bench) -> None:
    def refusal(**variables: str) -> str:
        status, _, err = bench.run(**variables)
        assert status == 2
        assert err.startswith("test-v2: ") and err.count("\n") == 1
        return err

    assert "no qemu-system-x86_64 in PATH" in (said := refusal()) and " qemu-system-x86," in said
    assert "LAB_CGROUP=v3: it is one of v2, v1, hybrid" in refusal(LAB_CGROUP="v3")
    bench.has("qemu-system-x86_64", "exit 1")
    assert "no mmdebstrap in PATH" in refusal()
    bench.has("mmdebstrap", 'mkdir "$TMPDIR/half" && touch "$OUT/kernel"; echo "E: no such package"; exit 100')
    (bench.directory / "pip.py").touch()  # one that installs nothing, and needs no network for it
    assert "mmdebstrap could not make the root disk: E: no such package" in refusal(PYTHONPATH=str(bench.directory))
    Path(root_disk.cache_directory(bench.variables())).parent.rename(bench.directory / "away")
    (bench.directory / "cache" / "minicontainer").touch()
    assert "no cache for the root disk" in refusal()


def test_a_guest_that_does_not_boot_gets_a_second_chance_and_no_third(bench: Bench) -> None:
    bench.has_disk()
    bench.has("qemu-system-x86_64", f"echo boot >>{bench.directory}/boots; echo 'qemu: no BIOS' >&2; exit 1")
    status, out, err = bench.run()
    assert status == 2
    assert out.count("the guest ended before its tests: qemu: no BIOS; once more") == 1
    assert err == "test-v2: the guest ended before its tests: qemu: no BIOS\n"
    probes = os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert (bench.directory / "boots").read_text().count("boot") == 2 + probes


def test_output_report_and_status_are_those_of_the_pytest_in_the_guest(bench: Bench) -> None:
    """And the words for it arrive there as they were given. The make-believe guest reads its disk as the real one would."""
    bench.has_disk()
    (bench.directory / "guest.py").write_text(
        "import io, re, sys, tarfile\n"
        "line = ' '.join(sys.argv)\n"
        "print('Linux 0.1')\n"
        "disk = tarfile.open(re.search(r'file=(\\S+checkout.tar)', line)[1])\n"
        "print(disk.extractfile('./request').read().decode())\n"
        "print('./vm/guest.sh' in disk.getnames(), './build' in disk.getnames())\n"
        "print('=== 1 failed in 0.1s ===')\n"
        "with tarfile.open(re.search(r'id=results,path=(\\S+/results)', line)[1], 'w') as results:\n"
        "    for name, data in {'status': b'1\\n', 'junit.xml': b'<testsuites/>'}.items():\n"
        "        member = tarfile.TarInfo(name)\n"
        "        member.size = len(data)\n"
        "        results.addfile(member, io.BytesIO(data))\n"
    )
    bench.has("qemu-system-x86_64", f'exec {sys.executable} {bench.directory}/guest.py "$@"')
    status, out, err = bench.run("-k", "memory or 'cpu'", LAB_CGROUP="hybrid")
    assert (status, err) == (1, "")
    assert (bench.directory / "reports" / "junit-hybrid.xml").read_bytes() == b"<testsuites/>"
    lines = out.splitlines()
    assert any(line.startswith("export LAB_CGROUP=hybrid ") for line in lines)
    (command,) = (line.strip() for line in lines if "-m pytest" in line)
    words = shlex.split(command)
    assert words[words.index("-k") + 1 :] == ["memory or 'cpu'", *filter(os.path.exists, guest_tests.SELECTION)]
    assert lines[-2:] == ["True False", "=== 1 failed in 0.1s ==="]


def test_what_is_left_out_on_v1_is_what_takes_long() -> None:
    chosen = {world: guest_tests.request(world, ["-q"]) for world in guest_tests.WORLDS}
    for path in guest_tests.SELECTION:
        assert [path in chosen[world] for world in ("v2", "hybrid")] == [True, True], "a file that is not there"
        assert (path in chosen["v1"]) == (path not in guest_tests.NOT_ON_V1)
    assert set(guest_tests.NOT_ON_V1) < set(guest_tests.SELECTION)
    assert guest_tests.NOT_ON_V1[0] in guest_tests.request("v1", [guest_tests.NOT_ON_V1[0]])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_it_ends_the_guest(bench: Bench, number: signal.Signals) -> None:
    bench.has_disk()
    program = f'case "$*" in *" kvm "*) exit 1 ;; esac; echo "$$" >{bench.directory}/pid; echo Linux; exec sleep 1000'
    bench.has("qemu-system-x86_64", program)
    with bench.start() as process:
        assert process.stdout
        while not process.stdout.readline().startswith("test-v2: guest: Linux"):
            assert process.poll() is None
        guest = os.pidfd_open(int((bench.directory / "pid").read_text()))
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert select.select([guest], [], [], 10)[0], "the guest lives on"
    os.close(guest)
    if number == signal.SIGKILL:  # its files stay, until the next one comes
        bench.has("qemu-system-x86_64", "exit 1")
        bench.run()
    bench.is_clean()


def test_the_machine_has_no_network_and_writes_to_no_disk_of_the_cache(tmp_path: Path) -> None:
    line = guest_tests.machine(Disk(tmp_path / "a,b"), tmp_path, "tcg")
    assert line[line.index("-nic") + 1] == "none" and not any("netdev" in word for word in line)
    drives = [word for word in line if word.startswith("if=none")]
    assert len(drives) == 4 and all("snapshot=on" in drive for drive in drives)
    assert drives[0].endswith(f"file={tmp_path}/a,,b/root.ext4")
