"""What a container may do when nobody asks for anything: seen from outside, in /proc, and tried from inside."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from minicontainer.engine import Engine, EngineError
from minicontainer.engine.rights import CAPABILITIES, MASKED, READONLY, Rights
from minicontainer.linux.capabilities import known, mask_of
from minicontainer.runtime.errors import StartError
from tests.command import needs_root

pytestmark = needs_root

FOURTEEN = mask_of(CAPABILITIES)
HOST_PROC = Path("/proc")


@pytest.fixture
def engine(state_root: Path) -> Engine:
    """An engine with a state directory of its own."""
    return Engine(state_root)


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status, as the host sees it."""
    lines = (HOST_PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def program_of(init: int) -> int:
    """The container's program: process 1's child."""
    return int((HOST_PROC / f"{init}/task/{init}/children").read_text().split()[0])


def sets(status: dict[str, str]) -> tuple[int, ...]:
    """Inheritable, permitted, effective, bounding, ambient."""
    return tuple(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))


def said(engine: Engine, script: str, rights: Rights = Rights(), **options: object) -> str:  # noqa: B008 (it is frozen)
    """What a script in a container says, on either stream."""
    result = engine.run("busybox", ["sh", "-c", f"exec 2>&1; {script}"], capture=True, rights=rights, **options)
    return result.stdout


def test_by_default_fourteen_capabilities_no_new_privileges_and_a_filter(engine: Engine) -> None:
    """Process 1 has no more than the program: whoever gets at it has won nothing."""
    with engine.started("busybox", ["sleep", "600"]) as container:
        for pid in (container.pid, program_of(container.pid)):
            status = status_of(pid)
            assert sets(status) == (0, FOURTEEN, FOURTEEN, FOURTEEN, 0)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_privileged_gives_it_all_back(engine: Engine) -> None:
    everything = mask_of(known()) & sets(status_of(os.getpid()))[3]  # as far as we have it ourselves
    with engine.started("busybox", ["sleep", "600"], rights=Rights(privileged=True)) as container:
        status = status_of(program_of(container.pid))
        assert sets(status) == (0, everything, everything, everything, 0)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")
    assert said(engine, "mount -t tmpfs x /mnt 2>&1 || mkdir /m && mount -t tmpfs x /m && echo done", Rights(privileged=True)).endswith("done\n")  # fmt: skip


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("mkdir /m; mount -t tmpfs x /m", "denied"),
        ("mkdir /m; mount -o bind / /m", "denied"),
        ("umount /proc", "denied|not permitted"),
        ("unshare -m true", "not permitted"),
        ("unshare -U true", "not permitted"),
        ("chroot / unshare -n true", "not permitted"),
        ("hostname other", "not permitted"),
        ("date -s 2001-01-01", "not permitted"),
        ("echo x > /proc/sys/kernel/core_pattern", "Read-only"),
        ("echo x > /proc/fs/x", "Read-only|nonexistent"),
        ("echo 1 > /sys/kernel/mm/ksm/run", "Read-only"),
        ("mknod /dev/mem2 c 1 1 && cat /dev/mem2", "not permitted"),
        ("dmesg", "not permitted"),
    ],
)
def test_the_well_known_ways_out_are_refused(engine: Engine, script: str, told: str) -> None:
    text = said(engine, script)
    assert any(word in text for word in told.split("|")), text


def test_calls_that_no_ordinary_program_makes(engine: Engine, tmp_path: Path) -> None:
    """By number, from an interpreter of the host's: keyctl, add_key, bpf, io_uring_setup, userfaultfd, clone3, ptrace."""
    numbers = {"keyctl": 250, "add_key": 248, "bpf": 321, "io_uring_setup": 425, "userfaultfd": 323, "mount": 165, "setns": 308}  # fmt: skip
    if platform.machine() == "aarch64":
        numbers = {"keyctl": 219, "add_key": 217, "bpf": 280, "io_uring_setup": 425, "userfaultfd": 282, "mount": 40, "setns": 268}  # fmt: skip
    elif platform.machine() != "x86_64":
        pytest.skip("the numbers of this machine's calls are not known here")
    program = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, number in {numbers!r}.items():\n"
        "    ctypes.set_errno(0); libc.syscall(number, 0, 0, 0, 0, 0); print(name, ctypes.get_errno())\n"
    )
    sights = tuple((place, place, True) for place in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(place))
    result = engine.run("busybox", ["/usr/bin/python3", "-ISc", program], capture=True, volumes=sights)
    if result.status == 127:
        pytest.skip("there is no /usr/bin/python3 on this host")
    assert result.stdout.split("\n")[:-1] == [f"{name} 1" for name in numbers], result.stderr  # EPERM


def test_what_is_masked_and_what_is_read_only(engine: Engine) -> None:
    script = "for p in {}; do [ -d $p ] && ls -A $p; [ -f $p ] && head -c 9 $p; [ -c $p ] && echo $p; done; true"
    covered = said(engine, script.format(" ".join(MASKED))).split()
    assert covered and set(covered) <= set(MASKED), "only the null device, and empty directories"
    with engine.started("busybox", ["sleep", "600"]) as container:
        points = {
            fields[4]: fields[5].split(",")
            for fields in map(str.split, Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines())
        }
    for path in READONLY:
        if os.path.exists(path):
            assert "ro" in points[path], path
    assert "ro" in points["/sys"]
    with engine.started("busybox", ["sleep", "600"], rights=Rights(privileged=True)) as container:
        text = Path(f"/proc/{container.pid}/mountinfo").read_text()
    assert not any(f" {path} " in text for path in (*MASKED, *READONLY))


@pytest.mark.parametrize(
    ("rights", "names"),
    [
        (Rights(dropped=("ALL",)), []),
        (Rights(dropped=("ALL",), added=("NET_BIND_SERVICE",)), ["NET_BIND_SERVICE"]),
        (Rights(dropped=("MKNOD", "NET_RAW")), [name for name in CAPABILITIES if name not in ("MKNOD", "NET_RAW")]),
        (Rights(added=("SYS_ADMIN",)), [*CAPABILITIES, "SYS_ADMIN"]),
    ],
)
def test_capabilities_can_be_added_and_dropped(engine: Engine, rights: Rights, names: list[str]) -> None:
    with engine.started("busybox", ["sleep", "600"], rights=rights) as container:
        mask = mask_of(names)
        assert sets(status_of(program_of(container.pid))) == (0, mask, mask, mask, 0)


def test_a_capability_brings_its_system_calls_with_it(engine: Engine) -> None:
    script = "mkdir /m; mount -t tmpfs x /m && echo mounted"
    assert said(engine, script, Rights(added=("SYS_ADMIN",))) == "mounted\n"
    assert "mounted" not in said(engine, script, Rights(seccomp="unconfined")), "it takes the capability as well"


def test_all_but_one(engine: Engine) -> None:
    with engine.started("busybox", ["sleep", "600"], rights=Rights(added=("ALL",), dropped=("SYS_TIME",))) as container:
        bounding = sets(status_of(program_of(container.pid)))[3]
    assert not bounding & mask_of(["SYS_TIME"]) and bounding & mask_of(["SYS_ADMIN"])


def test_somebody_else_has_no_powers_at_all(engine: Engine) -> None:
    rights = Rights(user=(1000, 100), groups=(7, 8))
    with engine.started("busybox", ["sleep", "600"], rights=rights) as container:
        status = status_of(program_of(container.pid))
    assert sets(status) == (0, 0, 0, FOURTEEN, 0)
    assert status["Uid"].split() == ["1000"] * 4 and status["Gid"].split() == ["100"] * 4
    assert status["Groups"].split() == ["7", "8"]
    assert "denied" in said(engine, "touch /x", rights)


@pytest.mark.parametrize(("wanted", "uid"), [(None, 1000), (False, 0)])
def test_new_privileges_where_they_are_wanted(engine: Engine, tmp_path: Path, wanted: bool | None, uid: int) -> None:
    """A set-user-ID program of root's makes an ordinary user root then, and not else."""
    (tmp_path / "who.c").write_text("#include <unistd.h>\nint main(void) { return geteuid() == 0 ? 10 : 11; }\n")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "who", tmp_path / "who.c"], check=True)
    (tmp_path / "who").chmod(0o4755)
    tmp_path.chmod(0o755)
    result = engine.run(
        "busybox", ["/mnt/who"], volumes=((str(tmp_path), "/mnt", True),),
        rights=Rights(user=(1000, 1000), no_new_privileges=wanted),
    )  # fmt: skip
    assert result.status == (10 if uid == 0 else 11)


LANDLOCKED = (("/bin", "read execute"), ("/tmp", "read write"))


def test_landlock_where_it_is_wanted_holds_root_to_its_rules(engine: Engine) -> None:
    """It has every capability, and the permissions of root; and its own terminal and /proc as before."""
    rights = Rights(landlock=LANDLOCKED, added=("ALL",))
    script = "echo a >/tmp/a && cat /tmp/a; echo b >/root/b; cat /etc/passwd; ls /; head -1 /proc/self/status; echo >/dev/null"
    lines = said(engine, script, rights).splitlines()
    assert lines[0] == "a" and lines[-1] == "Name:\thead"
    assert sorted(line.rpartition(": ")[2] for line in lines[1:-1]) == ["Permission denied"] * 3


def test_what_joins_it_is_held_to_its_rules_too(engine: Engine) -> None:
    with engine.started("busybox", ["sleep", "600"], rights=Rights(landlock=LANDLOCKED)) as container:
        joined = engine.exec(engine.store.find(container.id), ["sh", "-c", "echo a >/tmp/a && ! echo b >/root/b"])
        assert joined.wait() == 0
        os.close(joined.pidfd)
        assert (Path(f"/proc/{container.pid}/root/tmp/a").read_text()) == "a\n"
        assert not Path(f"/proc/{container.pid}/root/root/b").exists()


def test_read_only_limits_oom_score_and_sysctls(engine: Engine) -> None:
    rights = Rights(
        read_only=True, rlimits=(("NOFILE", 100, 200), ("CORE", 0, 0)), oom_score_adj=500,
        sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "4096")),
    )  # fmt: skip
    before = Path("/proc/sys/kernel/msgmax").read_text()
    script = (
        "touch /x; touch /dev/shm/y && echo shm; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj "
        "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
    )
    assert said(engine, script, rights).splitlines()[1:] == ["shm", "100", "200", "500", "1", "4096"]
    assert "Read-only" in said(engine, "touch /x", rights)
    assert Path("/proc/sys/kernel/msgmax").read_text() == before


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        (Rights(added=("FOO",)), 'no capability "FOO"'),
        (Rights(dropped=("CAP_FOO",)), "no capability"),
        (Rights(user=(-1, 0)), "no user or group -1"),
        (Rights(user=(0, 1 << 32)), "no user or group"),
        (Rights(rlimits=(("FOO", 1, 1),)), 'no limit "foo"'),
        (Rights(rlimits=(("NOFILE", 2, 1),)), "above the hard one"),
        (Rights(oom_score_adj=1001), "-1000 (never) to 1000"),
        (Rights(seccomp="nonsense"), "no JSON"),
        (Rights(seccomp="[]"), "no JSON object"),
        (Rights(seccomp="{}"), "defaultAction"),
        (Rights(seccomp='{"defaultAction": "SCMP_ACT_DANCE"}'), "SCMP_ACT_DANCE"),
        (Rights(sysctls=(("kernel.core_pattern", "x"),)), "of no namespace"),
        (Rights(sysctls=(("nonsense", "x"),)), "of no namespace"),
    ],
)
def test_bad_wishes_are_refused_and_leave_nothing(engine: Engine, rights: Rights, told: str) -> None:
    with pytest.raises((EngineError, StartError)) as raised:
        engine.run("busybox", ["true"], rights=rights)
    assert told in str(raised.value) and "\n" not in str(raised.value) and raised.value.exit_code == 125
    assert engine.containers() == []


def test_a_profile_of_ones_own(engine: Engine) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    assert "No space left" in said(engine, "mkdir /m", Rights(seccomp=json.dumps(profile)))


def test_the_compiled_filter_is_kept_and_its_loss_is_no_harm(engine: Engine) -> None:
    script = "grep ^Seccomp: /proc/self/status"
    kept = Path(engine.store.root, "seccomp")
    assert said(engine, script).split() == ["Seccomp:", "2"]
    [file] = kept.iterdir()
    program = file.read_bytes()
    assert said(engine, script).split() == ["Seccomp:", "2"]
    assert [one.read_bytes() for one in kept.iterdir()] == [program]
    said(engine, "true", Rights(dropped=("KILL",)))
    assert len(list(kept.iterdir())) == 2, "other capabilities, another filter"
    for one in kept.iterdir():
        one.unlink()
    kept.rmdir()
    kept.write_text("")  # somebody's file: it cannot be kept, and is made each time
    assert said(engine, script).split() == ["Seccomp:", "2"]
    kept.unlink()


def test_wishes_go_to_disk_and_come_back_the_same(engine: Engine) -> None:
    rights = Rights(
        added=("SYS_ADMIN",), dropped=("KILL",), no_new_privileges=False, read_only=True, user=(1, 2), groups=(3,),
        rlimits=(("NOFILE", 1, 2),), oom_score_adj=5, sysctls=(("net.a", "b"),),
    )  # fmt: skip
    config = engine.create("busybox", ["true"], rights=rights)
    assert engine.store.config(config.id) == config
    engine.remove(config)
