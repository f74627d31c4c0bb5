"""`labs vm` up to the point where a Debian would boot: QEMU is real, and has an empty disk to boot from.

So its guest is one that hangs. That a real one works is seen by whoever runs `make test-vm`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import DEADLINE
from vm import box, commands, qemu, root_disk
from vm.box import Box
from vm.qemu import Machine
from vm.root_disk import Unavailable

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen")

needs_tools = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}; vm/provision.sh installs them"
)


@pytest.fixture
def empty(tmp_path: Path) -> Box:
    """A box with nothing on its disk."""
    directory = tmp_path / "box"
    directory.mkdir()
    disk = directory / "lab.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    (directory / "SHA256SUMS").write_text(f"{hashlib.sha256(disk.read_bytes()).hexdigest()}  lab.qcow2\n")
    return Box(directory)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """None yet; and none at the end."""
    monkeypatch.setattr(root_disk, "want_space", lambda place, wanted: None)
    monkeypatch.setattr(qemu, "BOOT", 0.1)
    monkeypatch.setattr(qemu, "HALT", 0.1)
    machine = Machine(tmp_path / "state")
    yield machine
    machine.destroy()


def settings(**variables: str) -> qemu.Settings:
    return qemu.wanted({"LAB_MEMORY": "64", "LAB_CPUS": "1", **variables})


@contextlib.contextmanager
def hanging(machine: Machine, box: Box) -> Iterator[Machine]:
    """A machine that has been made, and runs, and does not answer."""
    machine.directory.mkdir(parents=True)
    shutil.copy(box.disk, machine.directory / "disk.qcow2")
    (machine.directory / "key.pub").write_text("a key\n")
    (machine.directory / "accelerator").write_text("tcg")
    machine._start(machine.directory, settings())
    yield machine


def left(machine: Machine) -> list[str]:
    return sorted(os.listdir(machine.place))


@needs_tools
def test_a_guest_that_hangs_is_given_a_deadline_and_leaves_nothing(machine: Machine, empty: Box) -> None:
    with pytest.raises(Unavailable, match=r"the machine does not answer within \d+ s: its console says nothing"):
        machine.up(empty, settings())
    assert left(machine) == ["lock"]


@needs_tools
def test_a_port_that_is_taken_is_another_one_and_said(
    machine: Machine, empty: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind((qemu.ADDRESS, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(Unavailable, match="does not answer"):
            machine.up(empty, settings(LAB_PORT=str(taken)))
        assert f"port {taken} of 127.0.0.1 is taken: it is " in capsys.readouterr().out
        assert qemu.free_port(taken) > taken


def test_when_all_ports_are_taken_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "PORTS", 1)
    with socket.socket() as other:
        other.bind((qemu.ADDRESS, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"ports {taken} to {taken} of 127.0.0.1 are all taken; LAB_PORT names"):
            qemu.free_port(taken)


@needs_tools
def test_a_box_that_is_not_what_it_was_is_not_started(machine: Machine, empty: Box) -> None:
    with empty.disk.open("ab") as disk:
        disk.write(b"x")
    with pytest.raises(Unavailable, match=r"lab\.qcow2 has the checksum .{12}…, and .*SHA256SUMS says .{12}…: copy it"):
        machine.up(empty, settings())
    with pytest.raises(Unavailable, match=r"is no box: .*SHA256SUMS"):
        machine.up(Box(machine.place), settings())
    assert left(machine) == ["lock"]


def test_no_space_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=rf"a build wants 1073741824 MB, and in {tmp_path} \d+ MB are free"):
        root_disk.want_space(tmp_path, 1 << 50)
    assert list(tmp_path.iterdir()) == []


def test_without_qemu_it_says_what_to_install(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Box, "check", lambda self: None)
    monkeypatch.setattr(root_disk, "environment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(Unavailable, match=r"no qemu-system-x86_64 in PATH; as root: apt-get install .*qemu-system-x86"):
        machine.up(Box(tmp_path), settings())
    assert left(machine) == ["lock"]


@needs_tools
def test_a_machine_s_life(machine: Machine, empty: Box, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.status() == "not created"
    for act in (machine.halt, lambda: machine.ssh([]), lambda: machine.snapshot("a"), lambda: machine.restore("a")):
        with pytest.raises(Unavailable, match="there is no machine: `labs vm up` makes one"):
            act()
    with hanging(machine, empty):
        assert machine.status().startswith("running, 1 processors, 64 MiB; ssh 127.0.0.1:")
        machine.snapshot("a-1")
        assert machine.snapshots() == ["a-1"] and machine.status().endswith("; snapshots: a-1")
        for name in ("7", "", "a b", "a;quit"):
            with pytest.raises(Unavailable, match="a snapshot's name has letters"):
                machine.snapshot(name)
        with pytest.raises(Unavailable, match="no snapshot b; there are: a-1"):
            machine.restore("b")
        with pytest.raises(Unavailable, match="the machine does not answer within"):
            machine.restore("a-1")
        capsys.readouterr()
        machine.halt()
        assert "it is not off within" in (said := capsys.readouterr().out) and said.endswith("vm: off\n")
        assert machine.status() == "halted"
        machine.halt()
        assert capsys.readouterr().out == "vm: it is off already\n"
        with pytest.raises(Unavailable, match="the machine is off: `labs vm up` starts it"):
            machine.ssh(["true"])
        with pytest.raises(Unavailable, match="does not answer"):  # started again, and off again, and not removed
            machine.up(None, settings())
        assert machine.status() == "halted"
    machine.destroy()
    assert left(machine) == ["lock"]


@needs_tools
def test_a_second_up_says_that_it_is_up(
    machine: Machine, empty: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "url", lambda self: "http://127.0.0.1:8888/lab?token=t")  # asked of the guest
    with hanging(machine, empty):
        before = (machine.directory / "pid").read_text()
        capsys.readouterr()
        machine.up(None, settings())
        assert capsys.readouterr().out == "vm: it is up already: http://127.0.0.1:8888/lab?token=t\n"
        assert (machine.directory / "pid").read_text() == before


def test_one_command_at_a_time(machine: Machine) -> None:
    with machine._alone(), pytest.raises(Unavailable, match="another `labs vm` is at work"):
        Machine(machine.place).destroy()


def start(tmp_path: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    """`labs vm` with a state directory of the test's."""
    place = {"XDG_STATE_HOME": str(tmp_path / "xdg"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "LAB_VM": "qemu"}
    environment = {**os.environ, **place, "LAB_MEMORY": "64", "PYTHONUNBUFFERED": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from vm import root_disk; root_disk.want_space = lambda *_: None; "
         "from labs.cli import main; sys.exit(main())", "vm", *words],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(tmp_path: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    with start(tmp_path, *words, **variables) as process:
        out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


@needs_tools
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_up_in_the_middle_leaves_nothing_half_made(
    tmp_path: Path, empty: Box, number: signal.Signals
) -> None:
    place = tmp_path / "xdg" / "minicontainer" / "vm"
    with start(tmp_path, "up", LAB_BOX=str(empty.directory), LAB_PORT="20888") as process:
        assert process.stdout
        while not (line := process.stdout.readline()).startswith("vm: started"):
            assert line, process.stderr and process.stderr.read()
        guest = os.pidfd_open(int((place / "lab.unfinished" / "pid").read_text()))
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number == signal.SIGKILL:  # nobody could clear away then; the next command does
        assert run(tmp_path, "destroy") == (0, "vm: gone\n", "")
    assert select.select([guest], [], [], DEADLINE)[0], "the guest lives on"
    os.close(guest)
    assert os.listdir(place) == ["lock"]


def test_the_command_s_exit_status_and_its_words(tmp_path: Path) -> None:
    assert run(tmp_path, "status") == (1, "not created\n", "")
    assert run(tmp_path, "destroy") == (0, "vm: there is none\n", "")
    assert run(tmp_path, "ssh", "true") == (1, "", "labs vm: there is no machine: `labs vm up` makes one\n")
    assert run(tmp_path, "up", LAB_CPUS="x") == (1, "", "labs vm: LAB_CPUS=x: it is a number, such as 2\n")
    assert run(tmp_path, "up", LAB_CGROUP="v3") == (1, "", "labs vm: LAB_CGROUP=v3: it is v1 or v2\n")
    assert run(tmp_path, "status", LAB_VM="xen") == (1, "", "labs vm: LAB_VM=xen: it is qemu or vagrant\n")
    status, _, err = run(tmp_path, "dance")
    assert status == 2 and "invalid choice: 'dance'" in err


def test_what_is_tested_in_the_machine() -> None:
    words = commands.test_command(["tests/checks/test_03_uts.py", "-k", "a b"])
    assert words[:4] == ["sudo", "env", "-C", "/opt/minicontainer"] and words[-2:] == ["-k", "a b"]
    assert commands.test_command([])[-1] == "tests/checks"


# --- The box ---


def test_the_boot_sectors_are_a_partition_table_and_grub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "SIZE", 8 << 20)
    (tmp_path / "disk").write_bytes(b"\0" * (8 << 20))
    (tmp_path / "boot.img").write_bytes(b"B" * 512)
    (tmp_path / "core.img").write_bytes(b"C" * 1000)
    box._boot_sectors(tmp_path)
    written = (tmp_path / "disk").read_bytes()
    assert written[:440] == b"B" * 440 and written[512:1512] == b"C" * 1000 and not any(written[1512:])
    bootable, kind, first, count = struct.unpack_from("<B3xB3xII", written, 446)
    assert (bootable, kind, first, count) == (0x80, 0x83, 2048, 14336) and written[510:512] == b"\x55\xaa"
    (tmp_path / "core.img").write_bytes(b"C" * (1 << 20))
    with pytest.raises(Unavailable, match="does not go before the partition"):
        box._boot_sectors(tmp_path)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_box_catalogue_and_checksums_agree(empty: Box, tmp_path: Path) -> None:
    (empty.directory / "tree.sha256").write_text("ab" * 32 + "\n")
    box.describe(empty, 1_700_000_000, "https://school/boxes")
    empty.check(["lab.qcow2", "lab.box"])
    with tarfile.open(empty.directory / "lab.box") as archive:
        assert archive.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        assert {member.mtime for member in archive} == {1_700_000_000}
        inner = archive.extractfile("box.img")
        assert inner and inner.read() == empty.disk.read_bytes()
    text = empty.vagrant.read_text()
    assert hashlib.sha256((empty.directory / "lab.box").read_bytes()).hexdigest() in text
    assert '"url": "https://school/boxes/lab.box"' in text and '"version": "20231114.2213.20"' in text
    first = (empty.directory / "SHA256SUMS").read_text()
    box.describe(empty, 1_700_000_000, "https://school/boxes")
    assert (empty.directory / "SHA256SUMS").read_text() == first


def test_the_box_is_another_when_anything_is_different_that_is_slow_to_bring_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {box.key("bookworm"), box.key("trixie")}
    for name in box.INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(box, "ROOT", tmp_path)
    assert box.key("bookworm") in names
    for name in box.INPUTS:
        with (tmp_path / name).open("a") as file:
            file.write("#\n")
        names.add(box.key("bookworm"))
    assert len(names) == 2 + len(box.INPUTS)


def test_the_time_of_the_box_is_the_environment_s_or_the_commit_s() -> None:
    assert box.epoch({"SOURCE_DATE_EPOCH": "12"}) == 12
    assert box.epoch({}) > 1_600_000_000
    with pytest.raises(Unavailable, match="SOURCE_DATE_EPOCH=now: it is a number of seconds"):
        box.epoch({"SOURCE_DATE_EPOCH": "now"})
