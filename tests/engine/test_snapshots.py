"""Snapshots and clones of containers: stopped and running, in any number, by several at once, and what remains of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.engine import Engine, EngineError, snapshots
from minicontainer.engine.store import Config
from minicontainer.linux import mount, umount2
from minicontainer.network.wishes import Attachment, Port
from minicontainer.runtime.limits import Limits
from minicontainer.steps import Steps
from minicontainer.steps.mount import make_private
from tests.command import Command, needs_root, wait_until
from tests.host_state import bury_the_dead
from tests.steps.apart import apart
from tests.steps.test_snapshot import tree

pytestmark = needs_root

COUNTER = "n=0; trap 'exit 0' TERM; while :; do n=$((n+1)); echo $n > /new; mv /new /count; sleep 0.01; done"


@pytest.fixture
def engine(state_root: Path) -> Engine:
    """An engine with a state directory of its own, whose warnings are kept."""
    engine = Engine(state_root)
    engine.warnings = []  # type: ignore[attr-defined]
    engine.warn = engine.warnings.append  # type: ignore[attr-defined]
    return engine


def wrote(engine: Engine, script: str, name: str = "alpha", **options: Any) -> Config:
    """A container that has run this, and ended."""
    assert engine.run("busybox", ["sh", "-c", script], name=name, remove=False, **options).status == 0
    return engine.store.find(name)


def shown(engine: Engine, config: Config) -> dict[str, tuple[object, ...]]:
    """What a container that does not run has for its root."""
    config = engine.store.config(config.id)
    directory = engine.store.directory(config.id)

    def look() -> dict[str, tuple[object, ...]]:
        Steps().stack(engine._lowers(config), f"{directory}/upper", f"{directory}/work", f"{directory}/merged")
        return tree(Path(directory, "merged"))

    return apart(look)


def frozen(layers: Iterable[str]) -> list[str]:
    """Those that are not of the image."""
    return [layer for layer in layers if layer.startswith("snap-")]


def layers(engine: Engine) -> list[str]:
    """All frozen layers that are there."""
    return sorted(name for name in os.listdir(engine.store.layers) if "snap-" in name)


def count_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/root/count").read_text())


@contextlib.contextmanager
def running(engine: Engine, script: str = COUNTER, **options: Any) -> Iterator[tuple[Config, int]]:
    """A container that runs by itself, and its process 1; gone after the block."""
    config = engine.run_detached("busybox", ["/bin/sh", "-c", script], name="alpha", **options)
    try:
        yield config, engine.state(config).pid or 0
    finally:
        engine.remove(config, force=True, snapshots=True)


FIRST = "echo one > /one; mkdir -p /dir/inner; echo two > /dir/inner/two; ln /one /again; chmod 4750 /one; chown 5:7 /dir; rm /etc/passwd"


def test_restored_it_is_what_it_was(engine: Engine) -> None:
    config = wrote(engine, FIRST)
    before = shown(engine, config)
    assert engine.snapshot(config, comment="first").name == "snap0"
    assert shown(engine, config) == before, "the snapshot itself changes nothing"
    engine.attend(
        config, engine.start(config.replace(args=("sh", "-c", "rm -r /dir /one; echo x > /new; chmod 700 /")))
    )
    changed = shown(engine, config)
    assert engine.snapshot(config, "later").name == "later"
    assert changed != before
    engine.restore(config, "snap0")
    assert shown(engine, config) == before
    engine.restore(config, "later")
    assert shown(engine, config) == changed, "snapshots of later moments are still there"
    assert [(one.name, one.comment) for one in engine.snapshots(config)] == [("snap0", "first"), ("later", "")]
    engine.remove(config, snapshots=True)
    assert layers(engine) == []


def test_a_container_that_has_never_run(engine: Engine) -> None:
    config = engine.create("busybox", ["true"], name="alpha")
    before = shown(engine, config)
    engine.snapshot(config)
    engine.restore(config, "snap0")
    assert shown(engine, config) == before
    assert engine.run("busybox", ["true"]).status == 0
    running = engine.start(engine.store.find("alpha"))
    assert engine.attend(config, running).status == 0


def test_how_it_ended_is_still_known(engine: Engine) -> None:
    config = engine.create("busybox", ["sh", "-c", "exit 7"], name="alpha")
    engine.attend(config, engine.start(config))
    engine.snapshot(config)
    assert engine.wait(config) == 7


def test_of_a_container_found_before_it_starts_with_what_is_there_now(engine: Engine) -> None:
    """Between looking it up and starting it, somebody may take a snapshot."""
    config = wrote(engine, "echo kept > /file")
    engine.snapshot(config)
    again = config.replace(args=("grep", "-q", "kept", "/file"))
    assert engine.attend(again, engine.start(again)).status == 0
    engine.update(config, Limits(pids=50))  # nor does a change of its limits forget a layer
    assert engine.attend(again, engine.start(again)).status == 0


def test_it_goes_on_while_a_snapshot_is_taken(engine: Engine) -> None:
    with running(engine) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists() and count_of(pid) > 5, "it counts")
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        old = count_of(pid)
        for number in range(5):
            snapshot = engine.snapshot(config)
            taken = count_in(engine, snapshot)
            wait_until(lambda taken=taken: count_of(pid) > taken + 5, f"it counts on after snapshot {number}")  # type: ignore[misc]
            assert taken >= old
            old = taken
        points = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert sorted(points) == sorted(line.split()[4] for line in mounts.splitlines()), "what is mounted is the same"
        assert engine.run("busybox", ["true"]).status == 0
        assert not engine.paused(config)
        engine.stop(config)
        before = shown(engine, config)
        engine.restore(config, "snap0")
        assert shown(engine, config) != before
        engine.start_detached(engine.store.find("alpha"))
        wait_until(lambda: engine.state(config).status == "running", "it runs again")


def count_in(engine: Engine, snapshot: snapshots.Snapshot) -> int:
    for directory in snapshots.directories(engine.store, snapshot):
        if Path(directory, "count").exists():
            return int(Path(directory, "count").read_text())
    pytest.fail("no layer has it")


def python(program: str) -> str:
    """What runs a program by the host's interpreter, in a container that has the host's /usr."""
    return f'/bin/ln -s usr/lib64 /lib64; /bin/ln -s usr/lib /lib; exec /usr/bin/python3 -I -S -c "{program}"'


WAIT = "print('up', flush=True); import time; time.sleep(600)"
HOLD = {
    "a file is open": ("exec 3>/held; echo up; sleep 600", "has a file open (/held)"),
    "a file to be read": ("exec 3</kept; echo up; sleep 600", "has a file open (/kept)"),
    "a directory": ("mkdir /d; cd /d; echo up; sleep 600", "is in a directory (/d)"),
    "mounts": ("unshare -m sh -c 'echo up; sleep 600'", "has mounts of its own"),
    "a mount of its own files": ("mkdir /d /e; mount --bind /d /e; echo up; sleep 600", "of its root is mounted at /e"),
    "a root": ("mkdir /r; cp /bin/busybox /r/sh; chroot /r /sh -c 'echo up; while :; do :; done'", "is in a directory (/r)"),
    "a socket": (python(f"import socket; s = socket.socket(socket.AF_UNIX); s.bind('/s'); {WAIT}"), "a socket bound (/s)"),
    "a mapping": (python("import mmap, os; f = os.open('/kept', os.O_RDWR); m = mmap.mmap(f, 4, mmap.MAP_SHARED, 1); "
                         f"os.closerange(3, 30); {WAIT}"), "has a file mapped (/kept)"),
    "a watch": (python("import ctypes; c = ctypes.CDLL(None); c.inotify_add_watch(c.inotify_init(), b'/bin', 4095); "
                       f"{WAIT}"), "has an eye on files"),
}  # fmt: skip


@pytest.mark.parametrize("script, reason", HOLD.values(), ids=HOLD)
def test_what_holds_the_old_root_is_seen_and_the_layer_copied(engine: Engine, script: str, reason: str) -> None:
    from minicontainer.engine.rights import Rights

    rights = Rights(privileged=True) if "mount" in reason else Rights()
    volumes = (("/usr", "/usr", True),) if "python" in script else ()
    with running(engine, f"echo kept > /kept; {script}", rights=rights, volumes=volumes) as (config, pid):
        wait_until(lambda: "up" in Path(engine.store.log(config.id)).read_text(), "it has hold of it")
        root = os.stat(f"/proc/{pid}/root").st_dev
        snapshot = engine.snapshot(config)
        [warning] = engine.warnings  # type: ignore[attr-defined]
        assert "copied while it stood still" in warning and reason in warning, warning
        assert os.stat(f"/proc/{pid}/root").st_dev == root, "it has the same root as before"
        assert Path(snapshots.directories(engine.store, snapshot)[0], "kept").read_text() == "kept\n"
        assert frozen(engine.store.config(config.id).layers) == []
        assert not engine.paused(config)


def test_nobody_can_write_to_what_was_frozen(engine: Engine) -> None:
    """/proc/1/exe and the like lead to the old root still: it is read-only for ever."""
    with running(engine, "mkdir /my; cp /bin/busybox /my; exec /my/busybox sh -c 'while :; do sleep 0.01; done'") as (
        config,
        pid,
    ):
        wait_until(lambda: Path(f"/proc/{pid}/root/my/busybox").exists(), "it runs its own copy")
        [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        wait_until(lambda: os.readlink(f"/proc/{child}/exe") == "/my/busybox", "it is executed")
        snapshot = engine.snapshot(config)
        assert not engine.warnings  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="Read-only"):
            os.chmod(f"/proc/{child}/exe", 0o600)
        before = tree(Path(snapshots.directories(engine.store, snapshot)[0]))
        Path(f"/proc/{pid}/root/my/busybox").chmod(0o600)
        assert tree(Path(snapshots.directories(engine.store, snapshot)[0])) == before


def test_one_that_is_paused_stays_paused(engine: Engine) -> None:
    with running(engine) as (config, _):
        engine.pause(config)
        engine.snapshot(config)
        assert engine.paused(config)
        engine.unpause(config)


def test_one_that_vanishes_when_it_ends_may_just_have_ended(engine: Engine) -> None:
    """Whoever looks takes it away, with its layers: also who was to take a snapshot of it."""
    source = engine.create("busybox", ["true"], name="alpha")
    clone = engine.clone(source, ephemeral=True)
    wait_until(lambda: engine.store.record(clone.id)[1] is not None, "it ends")
    bury_the_dead()
    with pytest.raises(EngineError, match=r"removed"):
        engine.snapshot(clone)
    assert [config.name for config, _ in engine.containers()] == ["alpha"]
    engine.remove(source)
    assert layers(engine) == []


def test_a_copy_without_space_leaves_it_going(engine: Engine) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with running(engine, "exec 3>/held; echo up; " + COUNTER) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists(), "it counts")
        other = Engine(engine.store.root)
        other._steps = Steps().replace(copy_tree=full)
        with pytest.raises(EngineError, match='cannot take a snapshot of container "alpha": No space left'):
            other.snapshot(config)
        before = count_of(pid)
        wait_until(lambda: count_of(pid) > before, "it counts on")
        assert layers(engine) == [] and engine.snapshots(config) == [] and engine.repair() == []


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ATTEMPTS = 20
"""What is stopped just when it has its file open cannot be given another root: then that is copied, and not exchanged."""

KILLED_AT = ("is_frozen", "freeze", "seal_root", "take", "stack", "replace_root", "thaw")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", KILLED_AT)
def test_the_process_that_does_it_is_killed(engine: Engine, step: str, after: bool) -> None:
    """Repair finds the container still, and sets it going on one root, with all that it has written."""
    with running(engine) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists() and count_of(pid) > 5, "it counts")
        real = getattr(Steps(), step)

        def killer(*arguments: Any, **named: Any) -> None:
            if after:
                real(*arguments, **named)
            kill()

        sabotaged = Engine(engine.store.root)
        sabotaged._steps = Steps().replace(**{step: killer})
        with pytest.raises(EngineError, match="system repair"):
            for _ in range(ATTEMPTS):
                sabotaged.snapshot(config)
        engine.repair()
        assert engine.repair() == []
        before = count_of(pid)
        wait_until(lambda: count_of(pid) > before, "it counts on")
        assert not os.path.exists(f"{engine.store.directory(config.id)}/freezing")
        engine.snapshot(config)
        after_it = count_of(pid)
        wait_until(lambda: count_of(pid) > after_it, "and after the next snapshot")
        engine.stop(config)
        assert "count" in shown(engine, config)
    assert layers(engine) == []


MOVED = ("move_mount", "pivot_root", "umount2", "open_tree", "mount_setattr")


@pytest.mark.parametrize("call", MOVED)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_it_is_killed_in_the_midst_of_the_mounts(engine: Engine, call: str, number: int) -> None:
    from minicontainer.steps import reroot

    with running(engine) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists() and count_of(pid) > 5, "it counts")
        points = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        real, calls = getattr(reroot, call), []

        def killer(*arguments: Any) -> Any:
            calls.append(call)
            if len(calls) == number:
                kill()
            return real(*arguments)

        killed = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reroot, call, killer)
            for _ in range(ATTEMPTS):
                try:
                    engine.snapshot(config)
                except EngineError as error:
                    killed = "system repair" in str(error)
                    assert killed
                if killed or number > 1:
                    break
        assert killed or number > 1, "nobody was killed: this tests nothing"
        if killed:
            assert 'container "alpha" goes on, which stood still for a snapshot' in engine.repair()
        before = count_of(pid)
        wait_until(lambda: count_of(pid) > before, "it counts on")
        now = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert sorted(now) == sorted(points), "what is mounted is the same"


def test_a_root_that_cannot_be_replaced_is_kept(engine: Engine) -> None:
    """Whatever fails before the exchange of the roots: the container has its old one, writable, and the layer is copied."""
    with running(engine) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists() and count_of(pid) > 5, "it counts")

        def fail(*_: object) -> None:
            raise OSError(16, "lowerdir is in use")

        other = Engine(engine.store.root)
        other._steps, heard = Steps().replace(stack=fail), list[str]()
        other.warn = heard.append
        for _ in range(ATTEMPTS):
            snapshot = other.snapshot(config)
            if "lowerdir is in use" in heard[-1]:
                break
        assert "lowerdir is in use" in heard[-1]
        before = count_of(pid)
        wait_until(lambda: count_of(pid) > before, "it counts on")
        assert count_in(engine, snapshot) <= before
        assert frozen(engine.store.config(config.id).layers) == []


def test_clones_share_and_do_not_see_each_other(engine: Engine) -> None:
    source = wrote(engine, FIRST)
    before = shown(engine, source)
    made = [engine.clone(source, "copy"), engine.clone(source, "whole", full=True), engine.clone(source)]
    assert [shown(engine, one) for one in made] == [before] * 3
    for one in made:
        again = one.replace(args=("sh", "-c", "echo mine > /one; rm -r /dir"))
        assert engine.attend(again, engine.start(again)).status == 0
        assert shown(engine, one) != before
    assert shown(engine, source) == before
    assert (
        made[1].layers == source.layers
        and frozen(source.layers) == []
        and made[1].origin == ""
        and made[0].origin == source.id
    )
    with pytest.raises(EngineError, match=f"is the base of copy, {made[2].name}; remove the clone first"):
        engine.remove(source, force=True, snapshots=True)
    for one in (made[0], made[2], source):
        engine.remove(one)
    assert layers(engine) == []
    engine.remove(made[1])


def test_a_clone_keeps_its_limits_and_gets_a_name_and_addresses_of_its_own(engine: Engine) -> None:
    source = engine.create(
        "busybox", ["true"], name="alpha", hostname="web", limits=Limits(pids=20, memory=1 << 26), env=("A=b",),
        networks=(Attachment("front", ip="10.9.0.5", mac="02:00:00:00:00:01", aliases=("db",)),),
        ports=(Port(80, 8080), Port(81)),
    )  # fmt: skip
    made = engine.clone(source, "beta")
    assert (made.limits, made.env, made.args) == (source.limits, source.env, source.args)
    assert made.id != source.id and made.hostname == made.id and made.created > source.created
    assert made.networks == (Attachment("front", aliases=("db",)),) and made.ports == (Port(81),)
    assert "8080" in engine.warnings[0]  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match='the name "beta" is taken'):
        engine.clone(source, "beta")
    with pytest.raises(EngineError, match="cannot be a name"):
        engine.clone(source, "../beta")
    assert len(engine.containers()) == 2
    engine.remove(made)
    engine.remove(source)
    assert layers(engine) == []


def test_an_ephemeral_clone_vanishes_when_it_stops(engine: Engine) -> None:
    source = wrote(engine, FIRST)
    source = source.replace(args=("sh", "-c", "echo x > /mine; trap 'exit 0' TERM; while :; do sleep 0.01; done"))
    engine.store._write(source)
    before = shown(engine, source)
    made = engine.clone(source, "beta", ephemeral=True)
    assert engine.state(made).status == "running"
    engine.repair()
    assert engine.state(made).status == "running"
    engine.stop(made)
    assert [config.name for config, _ in engine.containers()] == ["alpha"]
    assert shown(engine, source) == before
    engine.remove(source)
    assert layers(engine) == []


def test_a_clone_of_a_clone_of_a_snapshot(engine: Engine) -> None:
    source = wrote(engine, FIRST)
    before = shown(engine, source)
    engine.snapshot(source)
    one = engine.clone(source, "one", snapshot="snap0")
    two = engine.clone(one, "two")
    engine.snapshot(two, "mine")
    assert [shown(engine, config) for config in (one, two)] == [before] * 2
    with pytest.raises(EngineError, match='snapshot "snap0" of container "alpha" is the base of one'):
        engine.remove_snapshots(source, ["snap0"])
    with pytest.raises(EngineError, match="is the base of two"):
        engine.remove(one)
    with pytest.raises(EngineError, match="has snapshots: mine; remove them with it: minicontainer rm --snapshots two"):
        engine.remove(two)
    engine.remove(two, snapshots=True)
    engine.remove(one)
    assert engine.remove_snapshots(source, ["ALL"]) == ["snap0"]
    assert shown(engine, source) == before
    engine.remove(source)
    assert layers(engine) == []


def test_a_hundred_and_fifty_snapshots_in_a_row(engine: Engine) -> None:
    """Deeper than the bound: the upper half is merged, and every one of them can still be restored."""
    config = engine.create("busybox", ["true"], name="alpha")
    upper = Path(engine.store.directory(config.id), "upper")
    kept = {}
    for number in range(150):
        (upper / f"file{number}").write_text(str(number))
        if number:
            os.mknod(upper / f"file{number - 1}", 0o020000, 0)  # a whiteout
        (upper / "always").write_text(str(number))
        if number in (0, 60, 99, 100, 149):
            kept[number] = shown(engine, config)
        engine.snapshot(config)
        assert len(engine.store.config(config.id).layers) <= snapshots.MOST_LAYERS
    assert shown(engine, config) == kept[149]
    for number, before in kept.items():
        engine.restore(config, f"snap{number}")
        assert shown(engine, config) == before, number
    running = engine.start(engine.store.find("alpha"))
    assert engine.attend(config, running).status == 0
    assert len(engine.remove_snapshots(config, ["ALL"])) == 150
    assert set(layers(engine)) == set(frozen(engine.store.config(config.id).layers))
    assert shown(engine, config) == kept[149]
    engine.remove(config)
    assert layers(engine) == []


def test_several_at_once(engine: Engine) -> None:
    """Snapshots, clones, removals of one container, by several processes: each wholly, no layer is lost, none left."""
    source = wrote(engine, FIRST)
    before = shown(engine, source)
    program = (
        "import sys, os; from minicontainer.engine import Engine; e = Engine(sys.argv[1]); c = e.store.find('alpha')\n"
        "for n in range(8):\n"
        "    e.snapshot(c); k = e.clone(c, full=n % 3 == 2); e.snapshot(k); e.remove(k, snapshots=True)\n"
        "    e.remove_snapshots(c, [e.snapshots(c)[0].name]) if n % 2 and sys.argv[2] == '0' else None\n"
    )
    line = [sys.executable, "-c", program, engine.store.root]
    processes = [subprocess.Popen([*line, str(n)], stderr=subprocess.PIPE, text=True) for n in range(4)]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 4
    assert len(engine.snapshots(source)) == 4 * 8 - 4
    assert shown(engine, source) == before
    for snapshot in engine.snapshots(source):
        assert all(map(os.path.isdir, snapshots.directories(engine.store, snapshot)))
    assert engine.repair() == []
    engine.remove(source, snapshots=True)
    assert layers(engine) == []


def test_several_at_once_while_it_runs(engine: Engine) -> None:
    program = (
        "import sys; from minicontainer.engine import Engine; e = Engine(sys.argv[1]); c = e.store.find('alpha')\n"
        "for n in range(5): e.snapshot(c); e.remove(e.clone(c))\n"
    )
    with running(engine) as (config, pid):
        wait_until(lambda: Path(f"/proc/{pid}/root/count").exists(), "it counts")
        line = [sys.executable, "-c", program, engine.store.root]
        processes = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        assert [process.communicate()[1] for process in processes] == [""] * 3
        assert len(engine.snapshots(config)) == 15
        before = count_of(pid)
        wait_until(lambda: count_of(pid) > before, "it counts on")
        assert engine.repair() == []
        counts = [count_in(engine, snapshot) for snapshot in engine.snapshots(config)]
        assert counts == sorted(counts)
    assert layers(engine) == []


def test_a_tree_that_is_very_deep(engine: Engine) -> None:
    """Names are exchanged, whatever is below them; what has to go there says that it cannot, and leaves nothing."""
    config = engine.create("busybox", ["true"], name="alpha")
    directory = os.open(f"{engine.store.directory(config.id)}/upper", os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    engine.snapshot(config)
    clone = engine.clone(config)
    engine.restore(config, "snap0")
    before = sorted(os.listdir(engine.store.layers)), len(engine.containers())
    for act in (lambda: engine.clone(config, full=True), lambda: engine.changes(config)):
        with pytest.raises(EngineError, match=r"nested too deep|Too many open files"):
            act()
    assert (sorted(os.listdir(engine.store.layers)), len(engine.containers())) == before
    engine.remove(clone)
    engine.remove(config, snapshots=True)
    assert layers(engine) == []


def test_from_a_process_with_threads(engine: Engine) -> None:
    """What does not run needs no process of ours; what runs does, and is refused in words."""
    source = wrote(engine, FIRST)
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
    thread.start()
    try:
        assert ready.wait() and engine.snapshot(source).name == "snap0"
    finally:
        done.set()
        thread.join()
    with running_as(engine, "beta") as config:
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        try:
            with pytest.raises(EngineError, match="several threads"):
                engine.snapshot(config)
        finally:
            done.set()
            thread.join()
    assert layers(engine) == [layer for snapshot in engine.snapshots(source) for layer in frozen(snapshot.layers)]
    engine.remove(source, snapshots=True)


@contextlib.contextmanager
def running_as(engine: Engine, name: str) -> Iterator[Config]:
    config = engine.run_detached("busybox", ["sleep", "600"], name=name)
    try:
        yield config
    finally:
        engine.remove(config, force=True, snapshots=True)


def wrong(engine: Engine, config: Config) -> dict[str, tuple[Callable[[], object], str]]:
    engine.snapshot(config, "there")
    return {
        "taken": (lambda: engine.snapshot(config, "there"), 'has a snapshot "there" already'),
        "all": (lambda: engine.snapshot(config, "ALL"), "cannot be the name of a snapshot"),
        "path": (lambda: engine.snapshot(config, "../x"), "cannot be the name of a snapshot"),
        "long": (lambda: engine.snapshot(config, "x" * 300), "cannot be the name of a snapshot"),
        "none": (lambda: engine.restore(config, "nope"), 'has no snapshot "nope"; there is there'),
        "up": (lambda: engine.restore(config, "../config"), "has no snapshot"),
        "clone": (lambda: engine.clone(config, snapshot="nope"), "has no snapshot"),
        "rm": (lambda: engine.remove_snapshots(config, ["there", "nope"]), "has no snapshot"),
    }


def test_bad_input_changes_nothing(engine: Engine) -> None:
    config = wrote(engine, FIRST)
    before = shown(engine, config)
    for act, said in wrong(engine, config).values():
        with pytest.raises(EngineError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert [one.name for one in engine.snapshots(config)] == ["there"] and shown(engine, config) == before
    assert len(layers(engine)) == 1 and len(engine.containers()) == 1
    engine.remove(config, snapshots=True)


def test_a_running_container_is_not_restored(engine: Engine) -> None:
    with running(engine) as (config, pid):
        engine.snapshot(config)
        with pytest.raises(
            EngineError, match="runs; stop it first: minicontainer stop alpha; or restore the snapshot to"
        ):
            engine.restore(config, "snap0")
        assert engine.state(config).pid == pid


def test_a_restoration_that_was_killed_is_finished_by_the_next_start(engine: Engine) -> None:
    config = wrote(engine, FIRST)
    engine.snapshot(config)
    again = config.replace(args=("sh", "-c", "rm /one"))
    engine.attend(again, engine.start(again))
    sabotaged = Engine(engine.store.root)
    sabotaged._steps = Steps().replace(restore=kill)
    pid = os.fork()
    if pid == 0:
        sabotaged.restore(config, "snap0")
        os._exit(0)
    os.waitpid(pid, 0)
    again = config.replace(args=("grep", "-q", "one", "/one"))
    assert engine.attend(again, engine.start(again)).status == 0
    assert engine.repair() == []
    engine.remove(config, snapshots=True)


def test_without_space_nothing_is_half_made(tmp_path: Path) -> None:
    def act() -> list[object]:
        top = tmp_path / "small"
        top.mkdir()
        make_private()
        mount("test", top, "tmpfs", 0, "size=8m")
        engine = Engine(top)
        config = engine.create("busybox", ["true"], name="alpha")
        upper = Path(engine.store.directory(config.id), "upper")
        space = os.statvfs(top).f_bavail * os.statvfs(top).f_frsize
        (upper / "big").write_bytes(b"x" * int(space * 0.7))
        said = []
        engine.snapshot(config)
        try:
            engine.clone(config, "beta", full=True)
        except EngineError as error:
            said.append(str(error))
        filler = os.open(top / "filler", os.O_CREAT | os.O_WRONLY)
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, b"x" * 4096)
        os.close(filler)
        try:
            engine.snapshot(config)
        except EngineError as error:
            said.append(str(error))
        os.unlink(top / "filler")
        found = [
            said,
            [one.name for one, _ in engine.containers()],
            layers(engine),
            [one.name for one in engine.snapshots(config)],
        ]
        found.append(engine.repair())
        found.append(list(engine.store.config(config.id).layers))
        umount2(top, 2)
        return found

    said, names, there, taken, repaired, chain = apart(act)
    assert all("No space left" in str(one) for one in said) and len(said) == 2  # type: ignore[union-attr, arg-type, attr-defined]
    assert names == ["alpha"] and taken == ["snap0"] and set(chain) >= set(there) and repaired == []  # type: ignore[call-overload]


def test_what_was_killed_before_it_had_a_name_is_swept(engine: Engine) -> None:
    config = wrote(engine, FIRST)
    engine.snapshot(config)
    os.mkdir(f"{engine.store.layers}/snap-0123")
    os.mkdir(f"{engine.store.layers}/.snap-0123")
    os.mkdir(f"{engine.store.layers}/{'0' * 64}")  # an image's
    assert len(engine.repair()) == 2
    assert set(os.listdir(engine.store.layers)) == {"lock", "0" * 64, *engine.store.config(config.id).layers}
    os.rmdir(f"{engine.store.layers}/{'0' * 64}")
    engine.remove(config, snapshots=True)


def test_the_records_are_json_that_names_layers(engine: Engine, minicontainer: Command) -> None:
    """What else has to know which layers are in use reads this."""
    config = wrote(engine, FIRST)
    snapshot = engine.snapshot(config, comment="first")
    file = Path(engine.store.directory(config.id), "snapshots/snap0.json")
    assert json.loads(file.read_text())["layers"] == list(snapshot.layers)
    assert set(snapshot.layers) == snapshots.in_use(engine.store)
    engine.remove(config, snapshots=True)
