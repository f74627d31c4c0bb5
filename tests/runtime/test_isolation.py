"""What a container sees, and what it does not: every law on the real kernel, read from outside where that is possible."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from minicontainer.linux import Namespace
from minicontainer.runtime.limits import Limits
from minicontainer.runtime.spec import Directory, Mount, Scratch
from tests.command import DEADLINE, needs_root, wait_until
from tests.host_state import children
from tests.runtime.conftest import ALL, Nursery

pytestmark = needs_root

SHAREABLE = [Namespace.UTS, Namespace.IPC, Namespace.NETWORK, Namespace.CGROUP, Namespace.TIME]


def lsns(pid: int) -> dict[str, str]:
    """An independent oracle: kind → inode number, as lsns(8) of util-linux sees them."""
    shown = subprocess.run(["lsns", "-rn", "-o", "TYPE,NS", "-p", str(pid)], capture_output=True, text=True).stdout
    return dict(line.split() for line in shown.splitlines())  # type: ignore[misc]


def program_of(running: object) -> int:
    """The pid of the program, child of process 1."""
    return wait_until(lambda: children(running.pid), "process 1 has a child")[0]  # type: ignore[attr-defined, no-any-return]


# Namespaces


def test_every_namespace_is_its_own(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600", hostname="alpha")
    for pid in (running.pid, program_of(running)):
        theirs, ours = lsns(pid), lsns(os.getpid())
        for kind in Namespace:
            assert kind.link(pid) == f"{kind.proc_name}:[{theirs[kind.proc_name]}]"
            if kind in ALL:
                assert theirs[kind.proc_name] != ours[kind.proc_name], f"the {kind.name} namespace is the host's"
            else:
                assert theirs[kind.proc_name] == ours[kind.proc_name]


def test_with_a_user_namespace_too(nursery: Nursery) -> None:
    running = nursery.start(
        "sleep", "600", namespaces=frozenset(Namespace), uid_mappings=[(0, 0, 65536)], gid_mappings=[(0, 0, 65536)]
    )
    ours = lsns(os.getpid())
    assert all(number != ours[kind] for kind, number in lsns(running.pid).items())
    assert Path(f"/proc/{running.pid}/uid_map").read_text().split() == ["0", "0", "65536"]


@pytest.mark.parametrize("shared", SHAREABLE, ids=lambda kind: kind.proc_name)
def test_a_shared_one_is_the_hosts_and_no_other_is(nursery: Nursery, shared: Namespace) -> None:
    running = nursery.start("sleep", "600", namespaces=ALL - {shared})
    for kind in ALL:
        assert (kind.link(running.pid) == kind.link()) == (kind is shared), kind


def test_the_host_name_is_the_containers_alone(nursery: Nursery) -> None:
    before = socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text()
    out = nursery.run("sh", "-c", "hostname; cat /proc/sys/kernel/domainname; hostname changed; hostname",
                      hostname="alpha", domainname="beta").out  # fmt: skip
    assert out == "alpha\nbeta\nchanged\n"
    assert (socket.gethostname(), Path("/proc/sys/kernel/domainname").read_text()) == before


def test_it_sees_its_own_processes_only(nursery: Nursery) -> None:
    out = nursery.run("sh", "-c", "echo $$; ls -d /proc/[0-9]*").out.split()
    assert out[0] == "2"
    assert set(out[1:]) <= {"/proc/1", "/proc/2", "/proc/3"}


def test_without_a_reaper_the_program_is_process_1(nursery: Nursery) -> None:
    assert nursery.run("sh", "-c", "echo $$", reaper=False).out == "1\n"


def test_it_has_a_loopback_that_is_up_and_nothing_else(nursery: Nursery) -> None:
    out = nursery.run(
        "sh", "-c", "ip -o link | wc -l; ip -o -4 addr; ping -c1 -w5 127.0.0.1 >/dev/null && echo reached"
    ).out
    assert out.startswith("1\n") and "inet 127.0.0.1/8" in out and out.endswith("reached\n")


def test_the_clocks_can_be_moved(nursery: Nursery) -> None:
    ahead = 10_000_000
    outside = float(Path("/proc/uptime").read_text().split()[0])
    inside = float(nursery.run("cat", "/proc/uptime", clock_offsets=(0, ahead)).out.split()[0])
    assert inside - outside == pytest.approx(ahead, abs=60)


def test_it_does_not_learn_its_place_among_the_hosts_groups(nursery: Nursery) -> None:
    out = nursery.run("cat", "/proc/self/cgroup", limits=Limits(pids=20)).out
    assert {line.rsplit(":", 1)[1] for line in out.splitlines()} == {"/"}


# Files


def test_the_hosts_mounts_are_gone(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600")
    points = [line.split()[4] for line in Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()]
    devices = ["null", "zero", "full", "random", "urandom", "tty"]
    expected = ["/", "/proc", "/dev", *(f"/dev/{name}" for name in devices), "/dev/pts", "/dev/shm", "/dev/mqueue"]
    assert sorted(points) == sorted(expected)


def test_there_is_no_way_up(nursery: Nursery) -> None:
    out = nursery.run(
        "sh", "-c", "cd /; cd ../../../..; pwd; ls -a /..; test -e /work -o -e /lib/modules && echo host"
    ).out
    assert out.startswith("/\n") and "host" not in out


def tree(top: str) -> str:
    """A digest of all names, kinds, contents and times below a directory."""
    digest = hashlib.sha256()
    for directory, directories, files in os.walk(top):
        directories.sort()
        for name in sorted(files + directories):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            digest.update(f"{path} {status.st_mode} {status.st_mtime_ns} {status.st_size} {status.st_uid}".encode())
            if stat.S_ISREG(status.st_mode):
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def test_what_it_writes_does_not_reach_the_image(nursery: Nursery) -> None:
    before = tree(nursery.image)
    script = (
        "echo mine >> /etc/passwd; rm /bin/vi /etc/group; mkdir /new; chmod 700 /tmp; mv /root /elsewhere; ls / /etc"
    )
    assert nursery.run("sh", "-c", script).status == 0
    assert tree(nursery.image) == before


def test_two_containers_do_not_see_one_another(nursery: Nursery) -> None:
    one = nursery.start("sh", "-c", "echo one > /mine; ipcmk -Q 2>/dev/null; echo > /dev/shm/mine; sleep 600")
    wait_until(lambda: Path(f"/proc/{one.pid}/root/dev/shm/mine").exists(), "the first has written")
    out = nursery.run("sh", "-c", "ls / /dev/shm; ps -o comm; hostname").out
    assert "mine" not in out and "sleep" not in out
    assert Path(f"/proc/{one.pid}/root/mine").read_text() == "one\n"


def test_a_directory_as_root_is_used_as_it_is(nursery: Nursery, tmp_path: Path) -> None:
    root = tmp_path / "odd, na:me \\ \u00e4\nnew"
    subprocess.run(["cp", "-a", nursery.image, root], check=True)
    assert nursery.run("sh", "-c", "echo kept > /kept", root=Directory(str(root))).status == 0
    assert (root / "kept").read_text() == "kept\n"
    assert list((root / "proc").iterdir()) == []  # what was mounted there was mounted in its own view only


def test_layers_may_have_any_name(nursery: Nursery, tmp_path: Path) -> None:
    place = tmp_path / "odd, na:me \\ \u00e4\nnew=,upperdir=x"
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    from minicontainer.runtime.spec import Overlay

    root = Overlay([nursery.image], f"{place}/upper", f"{place}/work", f"{place}/merged")
    assert nursery.run("sh", "-c", "echo kept > /kept", root=root).status == 0
    assert (place / "upper/kept").read_text() == "kept\n"


def test_a_scratch_root_is_bounded_and_gone(nursery: Nursery, tmp_path: Path) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    mounts = [Mount("/bin", source=f"{nursery.image}/bin", readonly=True)]
    outcome = nursery.run(
        "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=100; echo $?", root=Scratch(str(place), 1 << 20), mounts=mounts
    )
    assert outcome.out == "1\n" and "No space left" in outcome.err
    assert list(place.iterdir()) == []


def test_the_devices_are_what_they_are_called(nursery: Nursery) -> None:
    out = nursery.run(
        "stat", "-c", "%n %F %t:%T", *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))
    ).out
    assert out.splitlines() == [
        f"/dev/{name} character special file {numbers}"
        for name, numbers in (("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0"))
    ]  # fmt: skip


# Volumes


def test_a_volume_shows_the_hosts_directory(nursery: Nursery, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "theirs").write_text("from outside")
    out = nursery.run(
        "sh", "-c", "cat /a/b/c/theirs; echo back > /a/b/c/ours", mounts=[Mount("/a/b/c", source=str(source))]
    ).out
    assert out == "from outside"
    assert (source / "ours").read_text() == "back\n"


def test_a_read_only_volume_is_read_only_all_the_way_down(nursery: Nursery, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("kept")
    script = "cat /v/file; echo > /v/new; rm -f /v/file; mount -o remount,rw,bind /v 2>/dev/null; touch /v/x; ls /v"
    outcome = nursery.run("sh", "-c", script.replace("mount -o remount,rw,bind /v 2>/dev/null; ", ""),
                          mounts=[Mount("/v", source=str(source), readonly=True)])  # fmt: skip
    assert outcome.out == "keptfile\n" and outcome.err.count("Read-only file system") == 3
    assert [file.name for file in source.iterdir()] == ["file"]


def test_a_volume_can_be_a_file(nursery: Nursery, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 me\n")
    out = nursery.run("cat", "/etc/hosts", mounts=[Mount("/etc/hosts", source=str(file), readonly=True)]).out
    assert out == "127.0.0.1 me\n"


def test_one_source_can_be_mounted_twice(nursery: Nursery, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mounts = [Mount("/one", source=str(source)), Mount("/two", source=str(source), readonly=True)]
    outcome = nursery.run("sh", "-c", "echo x > /one/x; cat /two/x; touch /two/y", mounts=mounts)
    assert outcome.out == "x\n" and "Read-only" in outcome.err


def test_a_volume_through_a_link_of_the_image_stays_inside(nursery: Nursery, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", nursery.image, root], check=True)
    (root / "evil").symlink_to(outside)
    (root / "up").symlink_to("../../../../../../..")
    source = tmp_path / "source"
    source.mkdir()
    mounts = [Mount("/evil/made", source=str(source)), Mount("/up/made", source=str(source))]
    with contextlib.suppress(Exception):  # it may be refused; it may not lead out
        nursery.run("true", root=Directory(str(root)), mounts=mounts)
    assert list(outside.iterdir()) == []


# Files and signals of the caller


@pytest.mark.parametrize("reaper", [True, False])
def test_no_file_of_the_caller_reaches_the_program(nursery: Nursery, reaper: bool) -> None:
    extra = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), *os.pipe(), os.memfd_create("x")]
    extra.append(os.dup2(extra[0], 900))
    extra.append(os.dup2(extra[0], 901, inheritable=False))
    for fd in extra[:-1]:
        os.set_inheritable(fd, True)
    try:
        running = nursery.start("sleep", "600", reaper=reaper)
        processes = [running.pid, *([program_of(running)] if reaper else [])]
        for pid in processes:
            wait_until(
                lambda pid=pid: "sleep" in Path(f"/proc/{pid}/cmdline").read_text() or (pid == running.pid and reaper),
                "execve",
            )
            wait_until(
                lambda pid=pid: sorted(map(int, os.listdir(f"/proc/{pid}/fd"))) == [0, 1, 2], f"only 0, 1, 2 in {pid}"
            )
            for fd in (0, 1, 2):
                status = os.stat(f"/proc/{pid}/fd/{fd}")
                assert stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
    finally:
        for fd in extra:
            os.close(fd)


def test_the_cwd_and_root_of_process_1_are_the_containers(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600", cwd="/tmp")
    inside = os.stat(f"/proc/{program_of(running)}/root")
    assert os.path.samestat(os.stat(f"/proc/{running.pid}/root"), inside)
    assert not os.path.samestat(os.stat("/"), inside)
    assert os.readlink(f"/proc/{program_of(running)}/cwd") == "/tmp"


def test_what_is_to_be_preserved_is_3_and_4(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    (tmp_path / "b").write_text("second")
    with open(tmp_path / "a") as a, open(tmp_path / "b") as b:
        # In the other order, and one of them at a number that is another's target.
        low = os.dup2(a.fileno(), 60)
        # Not into a pipe: the shell would now and then be seen to hold an end of it itself.
        script = "cat <&4; cat <&3; ls /proc/$$/fd; true"
        out = nursery.run("sh", "-c", script, preserve_fds=[b.fileno(), low]).out
        os.close(low)
    assert out == "firstsecond0\n1\n2\n3\n4\n"


@pytest.mark.parametrize("reaper", [True, False])
def test_stdin_that_is_not_given_is_the_containers_null_device(nursery: Nursery, reaper: bool) -> None:
    out = nursery.run("sh", "-c", "cat; readlink /proc/$$/fd/0; stat -Lc %t:%T /proc/$$/fd/0", reaper=reaper).out
    assert out == "/dev/null\n1:3\n"


def test_stdin_that_is_given_is_the_callers(nursery: Nursery) -> None:
    read, write = os.pipe()
    os.write(write, b"hello")
    os.close(write)
    try:
        assert nursery.run("cat", stdin=read).out == "hello"
    finally:
        os.close(read)


@pytest.mark.parametrize("reaper", [True, False])
def test_signal_mask_and_dispositions_are_clean(nursery: Nursery, reaper: bool) -> None:
    ignored = [signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGALRM})
    try:
        out = nursery.run("grep", "^Sig[BIC]", "/proc/self/status", reaper=reaper).out
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    # posix_spawn(3) of the GNU C library leaves 32 and 33 ignored, which it keeps for itself: every program that has
    # threads sets them anew.
    masks = {name: int(mask, 16) & ~(1 << 31 | 1 << 32) for name, mask in map(str.split, out.splitlines())}
    assert masks == {"SigBlk:": 0, "SigIgn:": 0, "SigCgt:": 0}


def test_the_program_leads_a_session_of_its_own(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600")
    program = program_of(running)
    assert os.getsid(program) == os.getpgid(program) == program
    assert os.getsid(running.pid) != os.getsid(0)


def test_the_environment_is_the_one_that_was_given(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    outcome = nursery.run("env", env=["PATH=/bin:/usr/bin", "A=1", "B=x=y", "C="])
    assert outcome.out == "PATH=/bin:/usr/bin\nA=1\nB=x=y\nC=\n"


def test_the_environment_of_the_caller_cannot_be_read_from_process_1(nursery: Nursery) -> None:
    """/proc/1/environ is the caller's memory: its tokens and passwords."""
    assert os.environ
    inherited = Path("/proc/self/environ").read_bytes()
    assert inherited.strip(b"\0"), "this process has no environment to hide"
    out = nursery.run("sh", "-c", "cat /proc/1/environ /proc/1/cmdline | tr -d '\\0'").out
    assert out == "minicontainer init"


# Process 1


@pytest.mark.parametrize("reaper", [True, False])
@pytest.mark.parametrize("status", [0, 1, 42, 125, 126, 127, 128, 255])
def test_the_exit_status_is_the_programs(nursery: Nursery, status: int, reaper: bool) -> None:
    assert nursery.run("sh", "-c", f"exit {status}", reaper=reaper).status == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_killed_by_a_signal(nursery: Nursery, number: signal.Signals) -> None:
    assert nursery.run("sh", "-c", f"kill -{int(number)} $$").status == 128 + number


def test_killed_from_outside(nursery: Nursery) -> None:
    assert nursery.end(nursery.start("sleep", "600")) == 137


def test_a_signal_to_process_1_reaches_the_program(nursery: Nursery) -> None:
    read, write = os.pipe()
    running = nursery.start(
        "sh", "-c", "trap 'exit 33' TERM; echo; while :; do sleep 1; done", stdio=(None, write, None)
    )
    os.close(write)
    assert os.read(read, 1)
    os.close(read)
    signal.pidfd_send_signal(running.pidfd, signal.SIGTERM)
    assert nursery.end_of(running) == 33


def test_orphans_do_not_stay_zombies(nursery: Nursery) -> None:
    script = """for i in 1 2 3 4 5 6 7 8 9 10; do (true & true); sh -c 'true &'; done
    n=0; while grep -qs '^State:.Z' /proc/[0-9]*/status; do n=$((n+1)); [ $n -gt 2000 ] && exit 9; done; exit 0"""
    assert nursery.run("sh", "-c", script).status == 0


def test_the_end_of_the_program_ends_everything_in_it(nursery: Nursery) -> None:
    """The pipe closes only when the last process that holds it has ended, whatever that one thinks of it."""
    read, write = os.pipe()
    script = "for i in 1 2 3; do (trap '' TERM INT HUP; setsid sleep 600) & done; exit 5"
    running = nursery.start("sh", "-c", script, stdio=(None, write, None))
    os.close(write)
    assert nursery.end_of(running) == 5
    assert select.select([read], [], [], DEADLINE)[0] and os.read(read, 1) == b""
    os.close(read)


# Limits


needs_memory = pytest.mark.skipif(
    not os.path.isdir("/sys/fs/cgroup"), reason="no control groups are mounted at /sys/fs/cgroup"
)


@needs_memory
def test_over_its_memory_it_is_killed(nursery: Nursery) -> None:
    assert nursery.run("tail", "/dev/zero", limits=Limits(memory=32 << 20)).status == 137


@needs_memory
def test_a_fork_bomb_meets_its_bound(nursery: Nursery) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 600 & i=$((i+1)); done; echo unbounded"
    outcome = nursery.run("sh", "-c", script, limits=Limits(pids=10))
    assert "unbounded" not in outcome.out and "can't fork" in outcome.err
    assert outcome.status not in (0, 125)


@needs_memory
def test_its_group_is_gone_with_it(nursery: Nursery) -> None:
    running = nursery.start("sleep", "600", limits=Limits(memory=64 << 20, cpus=0.5, pids=10))
    assert running.group
    groups = running.group.directories
    for directory in groups:
        assert str(running.pid) in Path(directory, "cgroup.procs").read_text().split()
    nursery.end(running)
    assert groups and not any(map(os.path.exists, groups))
