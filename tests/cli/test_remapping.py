"""Root's containers whose users are somebody else on the host, and whose clocks are not the host's.

The witnesses are the host's view of the processes, and of the files on disk: nobody there is root in the container's
name, and what the container's root has written is root's.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.linux import PR_GET_DUMPABLE, prctl
from minicontainer.linux.capabilities import capget
from minicontainer.steps.overlay import stack_mapped
from tests.cli.test_rootless import rootless
from tests.command import DEADLINE, Command, needs_root, one_line
from tests.host_state import HostUnchanged
from tests.steps.apart import apart, errno_of

pytestmark = needs_root

MAP = ("--uidmap", "0:100000:65536")


def owners(place: Path) -> dict[str, tuple[int, int]]:
    """Who has the files of a directory on disk."""
    return {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in place.iterdir()}


def said_of(minicontainer: Command, name: str, template: str) -> str:
    return minicontainer("inspect", "--format", template, name, check=True).stdout.strip()


@pytest.fixture
def container(minicontainer: Command) -> Iterator[str]:
    """One that runs, with users of its own and a volume."""
    minicontainer("run", "-d", "--name", "c1", *MAP, "-v", "data:/data", "busybox", "sleep", "600", check=True)
    yield "c1"
    minicontainer("rm", "-fvs", "c1")
    minicontainer("volume", "rm", "-f", "data")


def test_root_inside_is_nobody_outside_and_its_files_are_roots(minicontainer: Command, container: str) -> None:
    pid = said_of(minicontainer, container, "{{.State.Pid}}")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t100000\t100000\t100000\t100000\nGid:\t100000\t100000\t100000\t100000" in status
    for kind in ("uid", "gid"):
        assert Path(f"/proc/{pid}/{kind}_map").read_text().split() == ["0", "100000", "65536"]
    script = "id -u; stat -c %u:%g /bin/busybox; touch /new /data/new; chown 7:8 /new; rm /linuxrc; stat -c %u:%g /new"
    assert minicontainer("exec", container, "sh", "-c", script, check=True).stdout == "0\n0:0\n7:8\n"
    [upper] = minicontainer.root.glob("containers/*/upper")
    assert owners(upper) == {"new": (7, 8), "linuxrc": (0, 0), "data": (0, 0)}
    assert owners(minicontainer.root / "volumes/data/data") == {"new": (0, 0)}
    assert minicontainer("diff", container, check=True).stdout == "A /data\nD /linuxrc\nA /new\n"


def test_a_whole_life(minicontainer: Command, container: str, tmp_path: Path) -> None:
    """Copying in and out, mounting, snapshots, commits: what looks at disk and what goes inside see the same owners."""
    (tmp_path / "in").write_text("from the host")
    minicontainer("cp", tmp_path / "in", f"{container}:/in", check=True)
    minicontainer("update", "--mount", "type=volume,source=more,target=/more", container, check=True)
    minicontainer("exec", container, "sh", "-c", "touch /more/there; stat -c %u /in /more/there > /owners", check=True)
    assert minicontainer("cp", f"{container}:/owners", "-", check=True).stdout.count("0\n0\n") == 1
    taken = minicontainer("snapshot", container, check=True)
    assert one_line(taken.stderr).endswith(
        "was copied while it stood still: the owners of its files are shown through maps"
    )
    minicontainer("exec", container, "rm", "/in", check=True)
    minicontainer("commit", container, "mine:1", check=True)
    script = "stat -c %u:%g /owners; ls /in"
    done = minicontainer("run", "--rm", "--uidmap", "0:300000:1000", "mine:1", "sh", "-c", script)
    assert done.stdout == "0:0\n" and "/in: No such file" in done.stderr
    minicontainer("stop", "-t", "0", container, check=True)
    minicontainer("snapshot", "restore", container, "snap0", check=True)
    minicontainer("start", container, check=True)
    assert minicontainer("exec", container, "cat", "/in", check=True).stdout == "from the host"
    minicontainer("clone", container, "c2", check=True)
    minicontainer("rm", "-f", "c2", check=True)
    assert "cannot share" in one_line(minicontainer("debug", container, "ps").stderr)
    minicontainer("rm", "-fvs", container, check=True)
    minicontainer("volume", "rm", "more", check=True)


def test_a_directory_of_the_hosts_keeps_its_owners_unless_idmap_is_said(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    script = "stat -c %u /plain/file /mapped/file"
    seen = minicontainer(
        "run",
        "--rm",
        *MAP,
        "-v",
        f"{tmp_path}:/plain",
        "-v",
        f"{tmp_path}:/mapped:idmap",
        "busybox",
        "sh",
        "-c",
        script,
    )
    assert seen.stdout.split() == ["65534", "0"], seen.stderr


def test_other_groups_than_users(minicontainer: Command) -> None:
    maps = ("--uidmap", "0:100000:10", "--uidmap", "1000:1000:1", "--gidmap", "0:200000:10")
    script = "cat /proc/self/uid_map /proc/self/gid_map"
    said = minicontainer("run", "--rm", *maps, "busybox", "sh", "-c", script, check=True).stdout.split()
    assert said == ["0", "100000", "10", "1000", "1000", "1", "0", "200000", "10"]


def test_ids_that_no_other_container_has(minicontainer: Command, tmp_path: Path) -> None:
    """Of those that /etc/subuid grants to "containers", while there are any; a clone gets its own."""
    (tmp_path / "granted").write_text("root:5:1\ncontainers:1000000:65536\ncontainers:3000000:131072\n")
    script = f"""
    mount --make-rprivate / && for file in /etc/subuid /etc/subgid; do
        [ -e $file ] || exit 9; mount --bind {tmp_path}/granted $file || exit 9
    done
    "$@" create --name one --userns auto busybox cat /proc/self/uid_map >&2
    "$@" create --name two --userns auto busybox cat /proc/self/uid_map >&2
    "$@" clone one three >&2
    for name in one two three; do "$@" start -a $name; done
    "$@" create --userns auto busybox true
    "$@" rm two >&2 && "$@" run --rm --userns auto busybox cat /proc/self/uid_map
    "$@" rm three one
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *minicontainer.line()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 0, done
    first = [line.split()[1] for line in done.stdout.splitlines() if line.split()[-1:] == ["65536"]]
    assert first == ["1000000", "3000000", "3065536", "3000000"], done
    refused = next(line for line in done.stderr.splitlines() if line.startswith("minicontainer: "))
    assert "65536 in /etc/subuid of the user containers, are all in use" in refused and "--uidmap" in refused


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--uidmap", "0:100000"), 'cannot understand "0:100000": write ID:HOST:COUNT'),
        (("--uidmap", "0:x:1"), 'cannot understand "0:x:1"'),
        (("--gidmap", "=1:0:1"), 'cannot understand "=1:0:1"'),
        (("--uidmap", "0:100000:0"), "--uidmap 0:100000:0: cannot be: a range has at least one id"),
        (("--uidmap", "0:4294967000:1000"), "none is over 4294967294"),
        (("--uidmap", "1:100000:10"), "--uidmap: nobody is root in the container: map its 0 too"),
        (("--uidmap", "0:100000:10", "--uidmap", "9:200000:10"), "it overlaps with 9:200000:10"),
        (("--uidmap", "0:100000:10", "--uidmap", "20:100009:1"), "it overlaps with 20:100009:1"),
        (("--userns", "auto", *MAP), "one of them says it"),
        ((*MAP, "--privileged"), "privileged mode is incompatible with user namespaces"),
        ((*MAP, "--network", "host"), "cannot share the host's network namespace when user namespaces are enabled"),
        ((*MAP, "--ipc", "host"), "cannot share the host's IPC namespace when user namespaces are enabled"),
        ((*MAP, "--network", "container:other"), "cannot share another container's network"),
        (("--boottime", "-999999999"), "a clock would be below zero"),
        (("--boottime", "5", "--timens", "host"), "take clocks of its own: leave out --timens host"),
    ],
)
def test_what_cannot_be(minicontainer: Command, options: tuple[str, ...], why: str) -> None:
    done = minicontainer("run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125 and why in one_line(done.stderr)
    assert minicontainer.containers() == []


def test_an_ordinary_user_is_told_that_it_takes_root(tmp_path: Path) -> None:
    done = rootless(tmp_path, "run", "--rm", *MAP, "busybox", "true")
    assert done.returncode == 125 and "take root: an ordinary user's containers are remapped" in one_line(done.stderr)


def test_the_clocks_are_ahead_of_the_hosts(minicontainer: Command) -> None:
    """Also where the users are others: who has become somebody else may not write to what is root's in /proc."""
    script = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())"
    here = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    for options in ((), MAP):
        clocks = ("--boottime", "1000000", "--monotonic", "-5", "--oom-score-adj", "100")
        words = "cat /proc/uptime /proc/self/timens_offsets /proc/self/oom_score_adj"
        said = minicontainer("run", "--rm", *clocks, *options, "busybox", *words.split(), check=True).stdout.split()
        assert 1000000 <= float(said[0]) - float(here[0]) < 1000000 + DEADLINE
        assert said[2:] == ["monotonic", "-5", "0", "boottime", "1000000", "0", "100"]


def test_a_tree_that_is_shown_through_maps_leaves_its_maker_as_he_was(
    tmp_path: Path, host_unchanged: HostUnchanged
) -> None:
    for name in ("low", "top/upper", "top/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "low/file").write_text("x")
    maps = [(0, 100000, 65536)]

    def make() -> object:
        before = capget(), prctl(PR_GET_DUMPABLE), os.getresuid(), os.getresgid(), os.readlink("/proc/self/ns/mnt")
        arguments = [str(tmp_path / "low")], str(tmp_path / "top/upper"), str(tmp_path / "top/work")
        tree = stack_mapped(*arguments, maps, maps)
        missing = errno_of(lambda: stack_mapped([str(tmp_path / "none")], *arguments[1:], maps, maps))
        after = capget(), prctl(PR_GET_DUMPABLE), os.getresuid(), os.getresgid(), os.readlink("/proc/self/ns/mnt")
        return before == after, os.stat("file", dir_fd=tree).st_uid, missing

    with host_unchanged():
        assert apart(make) == (True, 100000, errno.ENOENT)
