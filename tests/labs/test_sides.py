"""What the notebooks of labs 04 and 06 show: compared with what the kernel says of the same processes.

A program of its own plays each scene, by this file: who has loaded matplotlib has threads, and some scenes take root of
throw-away namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import needs_root

SANDBOX = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]


@pytest.fixture(scope="module")
def ipc() -> dict[str, Any]:
    """The scenes of lab 04."""
    return played(*SANDBOX, sys.executable, __file__, "ipc")


@pytest.fixture(scope="module")
def users() -> dict[str, Any]:
    """The scenes of lab 06."""
    return played(sys.executable, __file__, "users")


def played(*command: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return told


def test_objects_are_those_of_the_namespace_and_nobody_elses(ipc: dict[str, Any]) -> None:
    ours, theirs = ipc["ours"], ipc["theirs"]
    assert (ours["namespace"], theirs["namespace"]) == tuple(ipc["links"])
    assert ours["namespace"] != theirs["namespace"]
    assert [row["key"] for row in ours["segments"]] == [0xBEEF]
    assert ours["queues"] == ["letters"]
    assert (theirs["segments"], theirs["queues"]) == ([], [])
    assert ipc["looked up"] == ["ours", None]
    assert ipc["fetched"] == "dear neighbour"


def test_memory_that_is_in_hand_is_shown_across_the_boundary(ipc: dict[str, Any]) -> None:
    assert ipc["theirs"]["mapped"] == [0xBEEF]
    assert ipc["ours"]["segments"][0]["mapped"] == 2
    assert "has mapped 0xbeef ! of another namespace" in ipc["drawn"]
    assert "segment 0xbeef, 4096 bytes, mapped 2×" in ipc["drawn"]


def test_an_mqueue_that_was_mounted_before_is_a_window(ipc: dict[str, Any]) -> None:
    assert ipc["window"]["listed"] == ["letters"]
    assert ipc["window"]["queues"] == []
    assert "its /dev/mqueue: /letters ! of another namespace" in ipc["window drawn"]


def test_a_neighbour_that_fails_is_told(ipc: dict[str, Any]) -> None:
    assert ipc["complaint"] == "ZeroDivisionError: integer division or modulo by zero"


def test_a_newcomer_is_nobody_then_mapped_then_root(users: dict[str, Any]) -> None:
    for stage, uid_inside in (("alone", "65534"), ("mapped", "65534"), ("root", "0")):
        scene = users[stage]
        assert scene["inside"]["status"]["Uid"].split() == [uid_inside] * 4
        assert scene["executed"] == "sleep"
        assert f"it is uid {uid_inside}" in scene["drawn"]
        assert f"it is uid {scene['outside']['status']['Uid'].split()[1]}" in scene["drawn"]
        for line in scene["kernel"].splitlines():
            assert f'"{" ".join(line.split())}"' in scene["drawn"]
        full = int(scene["outside"]["status"]["CapEff"], 16) != 0
        assert full == (stage == "root"), "execve(2) leaves capabilities to uid 0 only"
    assert users["alone"]["kernel"] == ""
    assert users["mapped"]["outside"]["status"]["Uid"] == users["alone"]["outside"]["status"]["Uid"]


@needs_root
def test_root_inside_is_somebody_else_outside(users: dict[str, Any]) -> None:
    assert users["root"]["outside"]["status"]["Uid"] == "100000 100000 100000 100000"
    assert users["root"]["outside"]["status"]["Gid"] == "200000 200000 200000 200000"


def test_root_inside_may_do_what_its_namespace_owns(users: dict[str, Any]) -> None:
    said = {line[:20].strip(): line.split()[-1] for line in users["within"].splitlines()}
    assert said["sethostname before"] == "EPERM"
    assert said["sethostname after"] == "done"
    assert said["shadow"] == "EACCES"


def test_an_ordinary_user_denies_setgroups_before_the_gid_map(users: dict[str, Any]) -> None:
    words = [line.split()[-1] for line in users["ordinarily"].splitlines()]
    assert words == ["done", "EPERM", "done", "done"]


def test_a_container_of_an_ordinary_user(users: dict[str, Any]) -> None:
    who, inside, outside, count = users["rootless"].split()
    assert (who, inside, count) == ("0", "0", "1")
    assert outside != "0"


def test_a_step_of_the_session_that_fails_is_told(users: dict[str, Any]) -> None:
    assert users["complaint"] == "RuntimeError: not today"


def play_ipc() -> dict[str, Any]:
    from dataclasses import asdict

    from labs.notebook.ipc import fetch, look_up, neighbour, post, seen, share, show_queues
    from minicontainer.linux import CLONE_NEWIPC, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

    told: dict[str, Any] = {}
    share(0xBEEF, "ours", keep=True)
    post("letters", "dear neighbour")

    def too_early() -> None:
        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", "/dev", "tmpfs")
        show_queues("/dev/mqueue")
        unshare(CLONE_NEWIPC)

    answer, tell = os.pipe()

    def leaves() -> None:
        unshare(CLONE_NEWIPC)
        os.write(tell, json.dumps(look_up(0xBEEF)).encode())

    from labs.notebook import sides
    from labs.notebook.pictures import read_aloud

    def drawn(other: int) -> str:
        figure = sides.objects.figure({"we": os.getpid(), "the neighbour": other})
        figure.savefig(os.devnull, format="png")
        return read_aloud(figure)

    with neighbour(leaves) as other:
        told["links"] = [os.readlink(f"/proc/{pid}/ns/ipc") for pid in ("self", other)]
        told |= {"ours": asdict(seen(os.getpid())), "theirs": asdict(seen(other)), "drawn": drawn(other)}
        told["looked up"] = [look_up(0xBEEF), json.loads(os.read(answer, 100))]
    with neighbour(too_early) as other:
        told |= {"window": asdict(seen(other)), "window drawn": drawn(other)}
    told["fetched"] = fetch("letters")
    try:
        with neighbour(lambda: 1 // 0):
            pass
    except RuntimeError as error:
        told["complaint"] = str(error)
    return told


def play_users() -> dict[str, Any]:
    import contextlib
    import io
    from dataclasses import asdict

    from labs.notebook import sides
    from labs.notebook.pictures import read_aloud
    from labs.notebook.session import session
    from labs.notebook.users import STAGES, Side, inside, newcomer, ordinarily, run_rootless, within

    told: dict[str, Any] = {}
    for stage in STAGES:
        with newcomer(stage) as pid:
            figure = sides.id_map.figure(pid)
            figure.savefig(io.BytesIO())
            told[stage] = {
                "outside": asdict(Side.read(pid)),
                "inside": asdict(inside(pid)),
                "kernel": Path(f"/proc/{pid}/uid_map").read_text(),
                "executed": Path(f"/proc/{pid}/comm").read_text().strip(),
                "drawn": read_aloud(figure),
            }

    def heard(act: Any, *args: Any) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            act(*args)
        return out.getvalue()

    with newcomer("root") as pid:
        told["within"] = heard(
            within,
            pid,
            "attempt('sethostname before', sethostname, 'x')\nunshare(CLONE_NEWUTS)\n"
            "attempt('sethostname after', sethostname, 'x')\nattempt('shadow', open, '/etc/shadow')",
        )
    told["ordinarily"] = heard(ordinarily, ORDINARY)
    told["rootless"] = heard(run_rootless, "busybox", ["sh", "-c", "id -u; cat /proc/self/uid_map"])
    session.store("user.write_maps", "def write_maps(pid, uids, gids):\n    raise RuntimeError('not today')\n")
    try:
        with newcomer("mapped", mine=True):
            pass
    except RuntimeError as error:
        told["complaint"] = str(error)
    return told


ORDINARY = """
import signal

ready, tell = os.pipe()
pid = os.fork()
if pid == 0:
    unshare(CLONE_NEWUSER)
    os.write(tell, b"!")
    signal.pause()
os.read(ready, 1)


def write(file, text):
    with open(f"/proc/{pid}/{file}", "w") as opened:
        opened.write(text)


attempt("uid_map", write, "uid_map", f"0 {os.getuid()} 1")
attempt("gid_map", write, "gid_map", f"0 {os.getgid()} 1")
attempt("setgroups", write, "setgroups", "deny")
attempt("gid_map", write, "gid_map", f"0 {os.getgid()} 1")
os.kill(pid, signal.SIGKILL)
"""


if __name__ == "__main__":
    print(json.dumps({"ipc": play_ipc, "users": play_users}[sys.argv[1]]()))
