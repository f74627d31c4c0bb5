"""Volumes: directories that outlive containers; and whatever else can be mounted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.test_rootless import UID, rootless
from tests.command import DEADLINE, Command, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root

RUN = ("run", "--rm", "--network", "none")


def names(minicontainer: Command) -> list[str]:
    """Of all volumes."""
    return minicontainer("volume", "ls", "-q").stdout.split()


def said(minicontainer: Command, *arguments: str) -> str:
    """What a command that succeeds writes."""
    done = minicontainer(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_volume_outlives_containers(minicontainer: Command, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        said(minicontainer, *RUN, "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/file")
        assert said(minicontainer, *RUN, "-v", "data:/elsewhere:ro", "busybox", "cat", "/elsewhere/file") == "kept\n"
        assert minicontainer.containers() == [] and names(minicontainer) == ["data"]
        assert said(minicontainer, "volume", "rm", "data") == "data\n"
        assert os.listdir(minicontainer.root / "volumes") == ["lock"]


def test_create_list_inspect(minicontainer: Command) -> None:
    assert said(minicontainer, "volume", "create", "-l", "of=test", "data") == "data\n"
    assert said(minicontainer, "volume", "create", "data") == "data\n"
    explained = minicontainer.root / "explained"
    assert said(minicontainer, "volume", "create", "--explain-to", str(explained), "data") == "data\n"
    assert explained.exists()
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "-v", "data:/d", "busybox", "true")
    assert said(minicontainer, "volume", "ls").split() == ["VOLUME", "CONTAINERS", "data", "alpha"]
    assert said(minicontainer, "volume", "ls", "--format", "{{.Name}} {{.Labels.of}} {{.Users}}") == "data test alpha\n"
    assert said(minicontainer, "volume", "inspect", "--format", "{{.Name}}", "data") == "data\n"
    [shown] = json.loads(said(minicontainer, "volume", "inspect", "data"))
    assert (shown["Name"], shown["Labels"], shown["Containers"]) == ("data", {"of": "test"}, ["alpha"])
    assert Path(shown["Mountpoint"]).is_dir()


def test_without_space_there_is_no_half_of_one(minicontainer: Command) -> None:
    line = ["prlimit", "--fsize=0", *minicontainer.line("volume", "create", "data")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 125 and one_line(done.stderr) == 'cannot make volume "data": File too large'
    assert os.listdir(minicontainer.root / "volumes") == ["lock"]


def test_it_is_filled_from_the_image_once(minicontainer: Command, busybox: str) -> None:
    """With modes and links; what was changed since stays changed."""
    script = "ls /etc > /dev/null && rm /etc/passwd && echo mine > /etc/mine"
    said(minicontainer, *RUN, "-v", "etc:/etc", "busybox", "sh", "-c", script)
    seen = said(minicontainer, *RUN, "-v", "etc:/etc", "busybox", "ls", "/etc").split()
    assert "mine" in seen and "passwd" not in seen
    said(minicontainer, *RUN, "-v", "bin:/bin", "busybox", "ls")
    data = minicontainer.root / "volumes/bin/data"
    assert sorted(os.listdir(data)) == sorted(os.listdir(f"{busybox}/bin"))
    assert (data / "busybox").stat().st_mode == os.stat(f"{busybox}/bin/busybox").st_mode
    assert said(minicontainer, *RUN, "-v", "empty:/etc:nocopy", "busybox", "ls", "-A", "/etc") == ""


def test_what_was_half_filled_is_filled_anew(minicontainer: Command) -> None:
    """As if whoever filled it had been killed."""
    said(minicontainer, "volume", "create", "etc")
    directory = minicontainer.root / "volumes/etc"
    (directory / "filling").touch()
    (directory / "data/half").touch()
    seen = said(minicontainer, *RUN, "-v", "etc:/etc", "busybox", "ls", "/etc").split()
    assert "passwd" in seen and "half" not in seen
    assert not (directory / "filling").exists()


def test_repair_of_what_was_half_made(minicontainer: Command) -> None:
    said(minicontainer, "volume", "create", "data")
    (minicontainer.root / "volumes/data/config.json").unlink()
    assert said(minicontainer, "system", "repair") == 'volume "data", half made or half removed\n'
    assert os.listdir(minicontainer.root / "volumes") == ["lock"]


def test_a_link_in_the_image_leads_nowhere_outside(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").touch()
    subprocess.run(["cp", "-a", next((minicontainer.root / "layers").glob("*/diff")), tmp_path / "root"], check=True)
    (tmp_path / "root/link").symlink_to(tmp_path / "secret")
    said(minicontainer, *RUN, "-v", "data:/link", "--rootfs", str(tmp_path / "root"), "ls", "/")
    assert os.listdir(minicontainer.root / "volumes/data/data") == []


def test_a_volume_that_is_used_stays(minicontainer: Command) -> None:
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "-v", "data:/d", "busybox", "true")
    done = minicontainer("volume", "rm", "data")
    assert done.returncode == 1
    assert one_line(done.stderr) == 'volume "data" is used by alpha; first: minicontainer rm alpha'
    assert said(minicontainer, "volume", "prune", "-a") == ""
    said(minicontainer, "rm", "-v", "alpha")
    assert names(minicontainer) == ["data"]  # it has a name
    assert said(minicontainer, "volume", "prune") == ""
    assert said(minicontainer, "volume", "prune", "-a") == "data\n"
    done = minicontainer("volume", "rm", "data")
    assert (done.returncode, one_line(done.stderr)) == (1, 'there is no volume "data"; see: minicontainer volume ls')
    assert minicontainer("volume", "rm", "-f", "data").returncode == 0


def test_anonymous_volumes_go_with_their_container_if_that_is_wished(minicontainer: Command) -> None:
    said(minicontainer, *RUN, "-v", "/d", "busybox", "touch", "/d/file")
    assert names(minicontainer) == []
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "-v", "/d", "busybox", "true")
    [name] = names(minicontainer)
    assert len(name) == 64
    said(minicontainer, "rm", "-v", "alpha")
    assert names(minicontainer) == []
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "-v", "/d", "busybox", "true")
    said(minicontainer, "rm", "alpha")
    assert len(names(minicontainer)) == 1
    said(minicontainer, "volume", "prune")
    assert names(minicontainer) == []


def test_nothing_is_left_of_a_start_that_fails(minicontainer: Command) -> None:
    for how in ([], ["-d"], ["--rm"]):
        assert minicontainer("run", *how, "--network", "none", "-v", "/d", "busybox", "nope").returncode == 127
        assert names(minicontainer) == [] and minicontainer.containers() == []


def test_the_volumes_of_an_image(minicontainer: Command) -> None:
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "busybox", "true")
    said(minicontainer, "commit", "--change", "VOLUME /etc", "alpha", "with:1")
    said(minicontainer, "rm", "alpha")
    script = "grep ' /etc ' /proc/self/mounts && ls /etc"
    assert "passwd" in said(minicontainer, *RUN, "with:1", "sh", "-c", script)
    assert names(minicontainer) == []
    assert "passwd" in said(minicontainer, *RUN, "-v", "own:/etc", "with:1", "sh", "-c", script)
    assert names(minicontainer) == ["own"]


def test_files_go_in_and_out_of_a_volume(minicontainer: Command, tmp_path: Path) -> None:
    said(minicontainer, "create", "--name", "alpha", "--network", "none", "-v", "data:/d", "busybox", "true")
    (tmp_path / "file").write_text("x")
    assert minicontainer("cp", tmp_path / "file", "alpha:/d/").returncode == 0
    assert (minicontainer.root / "volumes/data/data/file").read_text() == "x"


@pytest.mark.parametrize(("wish", "expected"), [
    (["--tmpfs", "/t:size=1m,mode=1770"], "tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=1770"),
    (["--tmpfs", "/t:exec"], "tmpfs rw,nosuid,nodev,relatime"),
    (["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"], "tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k"),
    (["--mount", "type=tmpfs,dst=/t,readonly"], "tmpfs ro,nosuid,nodev,noexec,relatime"),
    (["--mount", "source=data,target=/t,volume-nocopy,ro"], "ro,"),
    (["-v", "data:/t:ro,noexec,z"], "ro,noexec,"),
])  # fmt: skip
def test_what_is_mounted(minicontainer: Command, wish: list[str], expected: str) -> None:
    done = said(minicontainer, *RUN, *wish, "busybox", "grep", " /t ", "/proc/self/mounts")
    _, _, kind, options, *_ = done.split()
    assert f"{kind} {options}".startswith(expected) or options.startswith(expected), done


def test_propagation_and_what_lies_below(minicontainer: Command, tmp_path: Path) -> None:
    """In a mount namespace of the test's own, in which the directory is shared and has a mount in it."""
    place = tmp_path / "v"
    (place / "below").mkdir(parents=True)
    look = ["grep", " /tree", "/proc/self/mountinfo"]

    def seen(*wish: str) -> str:
        line = [*map(str, minicontainer.line(*RUN, *wish, "busybox", *look))]
        script = 'mount --bind "$0" "$0" && mount --make-shared "$0" && mount -t tmpfs none "$0/below" && exec "$@"'
        whole = ["unshare", "--mount", "sh", "-c", script, str(place), *line]
        return subprocess.run(whole, capture_output=True, text=True, timeout=DEADLINE).stdout

    private = seen("--mount", f"type=bind,source={place},target=/tree")
    assert private.count("\n") == 2 and "master:" not in private and "shared:" not in private
    assert "master:" in seen("-v", f"{place}:/tree:rslave")
    assert seen("--mount", f"type=bind,source={place},target=/tree,bind-recursive=disabled").count("\n") == 1
    top, below = seen("-v", f"{place}:/tree:rro").splitlines()
    assert " ro," in top and " ro," in below
    top, below = seen("--mount", f"type=bind,source={place},target=/tree,readonly,bind-recursive=writable").splitlines()
    assert " ro," in top and " rw," in below


def test_owners_through_maps(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/file").touch()
    os.chown(tmp_path / "v/file", 1000, 1001)
    os.chown(tmp_path / "v", 1000, 1001)
    wish = f"{tmp_path}/v:/t:idmap=uids=1000-0-1;gids=1001-0-1"
    script = "stat -c '%u %g' /t/file && touch /t/new"
    assert said(minicontainer, *RUN, "-v", wish, "busybox", "sh", "-c", script) == "0 0\n"
    new = (tmp_path / "v/new").stat()
    assert (new.st_uid, new.st_gid) == (1000, 1001)


def test_what_is_nearer_to_the_root_covers_nothing(minicontainer: Command) -> None:
    script = "touch /a/b/file; grep -c ' /a' /proc/self/mounts"
    done = said(minicontainer, *RUN, "-v", "inner:/a/b", "-v", "outer:/a", "busybox", "sh", "-c", script)
    assert done == "2\n" and (minicontainer.root / "volumes/inner/data/file").exists()


@pytest.mark.parametrize(("wish", "expected"), [
    (["-v", "data:relative"], 'cannot understand the volume "data:relative": write DIR:/PLACE'),
    (["-v", "da ta:/d"], '"da ta" cannot be a volume'),
    (["-v", "data:/d:nope"], '/d: a volume has no option "nope"'),
    (["-v", "./:/d:nocopy"], "nocopy is for a volume"),
    (["-v", "data:/"], 'nothing can be mounted at "/"'),
    (["-v", "data:/d", "--tmpfs", "/d/"], "two things are to be mounted at /d"),
    (["-v", "data:/d:U"], '"U": owners of files are not changed'),
    (["-v", "data:/d:idmap=nonsense"], 'cannot understand "idmap=nonsense"'),
    (["--mount", "type=bind,source=/nowhere,target=/d"], "nothing to mount at /nowhere"),
    (["--mount", "type=odd,target=/d"], 'there is no type "odd"'),
    (["--mount", "type=tmpfs,target=/d,nocopy"], 'a tmpfs has no "nocopy"'),
    (["--mount", "type=bind,target=/d"], "say target=/PLACE, and source=DIR"),
    (["--mount", "source=data,target=/d,ro=perhaps"], "readonly is true or false"),
    (["--tmpfs", "d"], 'cannot understand --tmpfs "d"'),
    (["--tmpfs", "/d:size=odd"], "size"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(minicontainer: Command, wish: list[str], expected: str) -> None:
    done = minicontainer(*RUN, *wish, "busybox", "true")
    assert done.returncode == 125 and expected in one_line(done.stderr), done.stderr
    assert minicontainer.containers() == [] and names(minicontainer) == []


def test_volumes_of_an_ordinary_user(tmp_path: Path) -> None:
    done = rootless(tmp_path, "run", "--rm", "--network", "none", "-v", "data:/etc", "busybox", "touch", "/etc/mine")
    assert (done.returncode, done.stderr) == (0, "")
    data = tmp_path / "state/engine/volumes/data/data"
    assert {"passwd", "mine"} <= {*os.listdir(data)} and (data / "mine").stat().st_uid == UID
    done = rootless(tmp_path, "run", "--rm", "--network", "none", "-v", "data:/d:idmap", "busybox", "true")
    assert done.returncode == 125 and "idmap needs root" in one_line(done.stderr)
    assert rootless(tmp_path, "volume", "rm", "data").stdout == "data\n"
    assert os.listdir(tmp_path / "state/engine/volumes") == ["lock"]


@contextlib.contextmanager
def running(minicontainer: Command, *wishes: str) -> Iterator[str]:
    """A container that runs, by its name."""
    said(minicontainer, "run", "-d", "--name", "alpha", "--network", "none", *wishes, "busybox", "sleep", "600")
    try:
        yield "alpha"
    finally:
        minicontainer("rm", "-f", "-v", "alpha")


def mounted(minicontainer: Command, name: str) -> list[str]:
    """Where something below /m is mounted, as the container sees it."""
    lines = said(minicontainer, "exec", name, "cat", "/proc/self/mounts").splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith("/m")]


def test_mounts_change_while_it_runs_and_stay_changed(minicontainer: Command, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/file").write_text("x")
    bind = f"type=bind,source={tmp_path}/v,target=/m/bind,readonly"
    with running(minicontainer, "-v", "old:/m/old") as name:
        wishes = ("--mount", bind, "--mount", "source=data,target=/m/data", "--mount", "type=tmpfs,target=/m/t")
        said(minicontainer, "update", *wishes, "--unmount", "/m/old", name)
        for _ in range(2):
            assert sorted(mounted(minicontainer, name)) == ["/m/bind", "/m/data", "/m/t"]
            script = "cat /m/bind/file; touch /m/bind/file 2>/dev/null || echo ro; touch /m/data/file"
            assert said(minicontainer, "exec", name, "sh", "-c", script) == "xro\n"
            said(minicontainer, "stop", "-t", "0", name)
            said(minicontainer, "start", name)
        said(minicontainer, "update", "--unmount", "/m/bind", "--unmount", "/m/t", name)
        assert mounted(minicontainer, name) == ["/m/data"]
        assert said(minicontainer, "volume", "rm", "old") == "old\n"  # nobody has it any more


def test_all_of_the_changes_or_none(minicontainer: Command, tmp_path: Path) -> None:
    """The last one cannot be: something that is no directory is in its place."""
    with running(minicontainer, "-v", "old:/m/old") as name:
        before = said(minicontainer, "inspect", name)
        wishes = (
            "--unmount",
            "/m/old",
            "--mount",
            "source=data,target=/m/data",
            "--mount",
            "source=data,target=/etc/passwd",
        )
        done = minicontainer("update", *wishes, name)
        assert done.returncode == 1 and "cannot mount" in one_line(done.stderr) and "/etc/passwd" in done.stderr
        assert mounted(minicontainer, name) == ["/m/old"]
        assert said(minicontainer, "inspect", name) == before


def test_what_is_in_use_is_not_taken_away(minicontainer: Command) -> None:
    with running(minicontainer, "-v", "data:/m/data") as name:
        said(minicontainer, "exec", "-d", name, "sh", "-c", "cd /m/data; touch in; exec sleep 600")
        wait_until((minicontainer.root / "volumes/data/data/in").exists, "a program is in there")
        done = minicontainer("update", "--unmount", "/m/data", name)
        assert done.returncode == 1 and "a program in there uses it" in one_line(done.stderr)
        assert mounted(minicontainer, name) == ["/m/data"]
        done = minicontainer("update", "--unmount", "/m/other", name)
        assert done.returncode == 1 and "nothing" in one_line(done.stderr) and "/m/data" in done.stderr
        done = minicontainer("update", "--mount", "source=data,target=/proc/sys", name)
        assert done.returncode == 1 and "inside /proc" in one_line(done.stderr)


def test_mounts_change_in_one_that_does_not_run(minicontainer: Command) -> None:
    said(
        minicontainer, "create", "--name", "alpha", "--network", "none", "busybox", "grep", "-c", " /m ", "/proc/mounts"
    )
    said(minicontainer, "update", "--mount", "source=data,target=/m", "alpha")
    assert minicontainer("start", "-a", "alpha").stdout == "1\n"


def test_mounts_change_for_an_ordinary_user(tmp_path: Path) -> None:
    assert (
        rootless(tmp_path, "create", "--name", "alpha", "--network", "none", "busybox", "sleep", "600").returncode == 0
    )
    commands = (
        "start alpha", "update --mount source=data,target=/m alpha", "exec alpha touch /m/file", "exec alpha mount",
        "update --unmount /m alpha", "exec alpha mount", "rm -f alpha",
    )  # fmt: skip
    done = rootless_all(tmp_path, commands)
    assert [code for code, _, _ in done] == [0] * len(commands), done
    assert " on /m " in done[3][1] and " on /m " not in done[5][1]
    assert (tmp_path / "state/engine/volumes/data/data/file").stat().st_uid == UID


def rootless_all(tmp_path: Path, commands: Sequence[str]) -> list[tuple[int, str, str]]:
    """One after the other, each with its exit code and what it wrote."""
    results = [rootless(tmp_path, *command.split()) for command in commands]
    return [(one.returncode, one.stdout, one.stderr) for one in results]


def test_views_are_those_of_lxcfs(minicontainer: Command, tmp_path: Path) -> None:
    """What is bound, with a directory in its place, in a mount namespace of the test's own; and without it."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    line = [*map(str, minicontainer.line(*RUN, "--views", "busybox", "cat", "/proc/meminfo"))]
    place = (
        'mount -t tmpfs none /var/lib && mkdir /var/lib/lxcfs && if [ "$0" ]; then mount --bind "$0" /var/lib/lxcfs; fi'
    )
    whole = ["unshare", "--mount", "sh", "-c", f'{place} && exec "$@"']
    done = subprocess.run([*whole, str(tmp_path), *line], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "MemTotal: 1 kB\n", "")
    done = subprocess.run([*whole, "", *line], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 125 and "--views needs lxcfs" in one_line(done.stderr)
