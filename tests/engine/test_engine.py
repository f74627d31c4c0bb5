"""The engine: named containers over their life, on disk and in the process table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.engine import Engine, EngineError
from minicontainer.linux import Namespace
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import Limits
from tests.command import DEADLINE, Command, line_of, needs_root, wait_until

pytestmark = needs_root


@pytest.fixture
def engine(state_root: Path) -> Engine:
    """An engine with a state directory of its own."""
    return Engine(state_root)


def left(engine: Engine) -> list[str]:
    """What is still there of containers."""
    return Command(Path(engine.store.root)).containers()


def test_run_captures_what_the_program_wrote(engine: Engine) -> None:
    result = engine.run("busybox", ["sh", "-c", "hostname; echo err >&2; exit 3"], hostname="alpha", capture=True)
    assert (result.status, result.stdout, result.stderr) == (3, "alpha\n", "err\n")
    assert left(engine) == []


def test_what_is_no_text_is_captured_all_the_same(engine: Engine) -> None:
    assert engine.run("busybox", ["printf", "\\377"], capture=True).stdout == "\ufffd"


def test_run_gives_the_program_the_callers_files(engine: Engine) -> None:
    stdin, stdout = os.pipe(), os.pipe()
    os.write(stdin[1], b"to and fro")
    os.close(stdin[1])
    assert engine.run("busybox", ["cat"], stdio=(stdin[0], stdout[1], 2)).status == 0
    assert os.read(stdout[0], 100) == b"to and fro"
    for fd in (stdin[0], *stdout):
        os.close(fd)


def test_started_is_there_within_the_block_and_gone_after_it(engine: Engine) -> None:
    with engine.started("busybox", ["sleep", "600"], hostname="alpha", limits=Limits(pids=20)) as container:
        assert Namespace.UTS.link(container.pid) != Namespace.UTS.link()
        pidfd = os.pidfd_open(container.pid)
        [(config, state)] = engine.containers()
        assert (config.id, config.name, state.status, state.pid) == (
            container.id,
            container.name,
            "running",
            container.pid,
        )
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)
    assert left(engine) == []


def test_an_exception_in_the_block_ends_it_too(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), engine.started("busybox", ["sleep", "600"]):
        1 / 0  # noqa: B018
    assert left(engine) == []


def test_a_block_whose_container_has_ended_by_itself(engine: Engine) -> None:
    with engine.started("busybox", ["true"]) as container:
        wait_until(lambda: engine.containers()[0][1].status != "running", "it ends")
        assert container.id
    assert left(engine) == []


def test_several_at_once(engine: Engine) -> None:
    with engine.started("busybox", ["sleep", "600"]) as one, engine.started("busybox", ["sleep", "600"]) as two:
        links = {kind.link(pid) for pid in (one.pid, two.pid) for kind in Namespace}
        assert len(links) == 2 * len(Namespace) - 1  # the user namespace is the host's
        assert engine.run("busybox", ["true"]).status == 0
        assert len(engine.containers()) == 2


def test_the_states_of_a_life(engine: Engine) -> None:
    config = engine.create("busybox", ["sh", "-c", "exit 9"], name="alpha")
    assert engine.state(config).status == "created"
    running = engine.start(config)
    assert engine.store.state(config.id).status == "running"
    assert engine.attend(config, running).status == 9
    assert (engine.state(config).status, engine.state(config).exit_code) == ("exited", 9)
    assert engine.wait(config) == 9
    engine.remove(config)
    assert engine.containers() == [] and left(engine) == []


def test_a_container_starts_again_with_what_it_had_written(engine: Engine) -> None:
    config = engine.create("busybox", ["sh", "-c", "echo x >> /log; wc -l < /log"], name="alpha")
    for expected in ("1\n", "2\n", "3\n"):
        read, write = os.pipe()
        engine.attend(config, engine.start(config, (None, write, 2)))
        os.close(write)
        with os.fdopen(read) as out:
            assert out.read() == expected
    engine.remove(config)


def test_what_runs_cannot_be_started_or_removed(engine: Engine) -> None:
    config = engine.create("busybox", ["sleep", "600"], name="alpha")
    running = engine.start(config)
    with pytest.raises(EngineError, match="runs already"):
        Engine(engine.store.root).start(config)
    with pytest.raises(EngineError, match="runs; stop it first"):
        engine.remove(config)
    with subprocess.Popen(Command(Path(engine.store.root)).line("rm", "-f", "alpha"), stdout=-1, text=True) as removal:
        assert engine.attend(config, running).status == 137
        assert removal.communicate(timeout=DEADLINE) == ("alpha\n", None)
    assert left(engine) == []


def test_who_watches_a_container_can_remove_it(engine: Engine) -> None:
    config = engine.create("busybox", ["sleep", "600"], name="alpha")
    running = engine.start(config)
    engine.remove(config, force=True)
    assert engine.attend(config, running).status == 137
    assert left(engine) == []


def test_a_container_that_cannot_be_started_stays_created(engine: Engine) -> None:
    config = engine.create("busybox", ["nope"], name="alpha", limits=Limits(pids=20))
    for _ in range(2):
        with pytest.raises(StartError, match="nope: not found") as raised:
            engine.start(config)
        assert raised.value.exit_code == 127
        assert engine.state(config).status == "created"
    with pytest.raises(EngineError, match="was not started"):
        engine.wait(config)
    engine.remove(config)


def test_run_that_fails_leaves_nothing(engine: Engine) -> None:
    for options in ({}, {"limits": Limits(pids=20, memory=64 << 20)}, {"terminal": True}):
        with pytest.raises(StartError):
            engine.run("busybox", ["nope"], **options)
        assert left(engine) == []


@pytest.mark.parametrize(
    ("image", "args", "options", "told"),
    [
        ("nope", ["true"], {"pull": "never"}, "there is no image"),
        ("", ["true"], {}, "cannot be an image"),
        ("../busybox", ["true"], {}, "cannot be an image"),
        ("/", [], {"rootfs": True}, "no command"),
        ("/nowhere", ["true"], {"rootfs": True}, "no root file system"),
        ("/etc/passwd", ["true"], {"rootfs": True}, "no root file system"),
        ("busybox", ["true"], {"name": "a/b"}, "cannot be a name"),
        ("busybox", ["true"], {"name": ".."}, "cannot be a name"),
        ("busybox", ["true"], {"name": "-rf"}, "cannot be a name"),
        ("busybox", ["true"], {"name": "x" * 300}, "name"),
        ("busybox", ["true"], {"hostname": "x" * 65}, "longer than"),
        ("busybox", ["true"], {"domainname": "x" * 65}, "setdomainname"),
        ("busybox", ["true"], {"volumes": (("/nowhere", "/v", True),)}, "/nowhere"),
        ("busybox", ["true"], {"limits": Limits(cpus=float("nan"))}, "processors"),
        ("busybox", ["true"], {"limits": Limits(cpus=float("inf"))}, "processors"),
        ("busybox", ["true"], {"limits": Limits(cpus=-1.0)}, "processors"),
        ("busybox", ["true"], {"limits": Limits(cpus=0.0)}, "processors"),
        ("busybox", ["true"], {"limits": Limits(memory=0)}, "memory"),
        ("busybox", ["true"], {"limits": Limits(memory=-2)}, "memory"),
        ("busybox", ["true"], {"limits": Limits(pids=0)}, "processes"),
        ("busybox", ["true"], {"limits": Limits(pids=-2)}, "processes"),
    ],
)
def test_bad_wishes_are_refused_and_leave_nothing(
    engine: Engine, image: str, args: list[str], options: dict, told: str
) -> None:  # type: ignore[type-arg]
    with pytest.raises((EngineError, StartError)) as raised:
        engine.run(image, args, **options)
    assert raised.value.exit_code == 125 and told in str(raised.value)
    assert left(engine) == []


def test_a_name_is_given_once(engine: Engine) -> None:
    config = engine.create("busybox", ["true"], name="alpha")
    with pytest.raises(EngineError, match='the name "alpha" is taken'):
        engine.create("busybox", ["true"], name="alpha")
    assert [found.id for found, _ in engine.containers()] == [config.id]
    engine.remove(config)
    engine.remove(engine.create("busybox", ["true"], name="alpha"))


def test_of_many_creates_of_one_name_exactly_one_wins(minicontainer: Command) -> None:
    processes = [
        subprocess.Popen(
            minicontainer.line("create", "--name", "alpha", "busybox", "true"), stdout=-1, stderr=-1, text=True
        )
        for _ in range(8)
    ]
    ends = [(*process.communicate(timeout=DEADLINE), process.returncode) for process in processes]
    winners = [out.strip() for out, err, status in ends if status == 0]
    assert len(winners) == 1
    assert all("taken" in err and err.count("\n") == 1 for _, err, status in ends if status != 0)
    assert minicontainer.containers() == [f"containers/{winners[0]}", "names/alpha"]


def test_of_two_starts_of_one_container_one_is_told(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "sleep", "600")
    processes = [
        subprocess.Popen(minicontainer.line("start", "alpha"), stdin=-3, stdout=-1, stderr=-1, text=True)
        for _ in range(4)
    ]
    wait_until(
        lambda: all(process.poll() is not None for process in processes), "three are told, and one need not stay"
    )
    assert minicontainer("rm", "-f", "alpha").returncode == 0
    ends = [(*process.communicate(timeout=DEADLINE), process.returncode) for process in processes]
    assert sorted(status for _, _, status in ends) == [0, 125, 125, 125]
    assert all(
        "runs already" in err or "another process is starting" in err for _, err, status in ends if status == 125
    )
    assert minicontainer.containers() == []


def test_names_and_the_beginnings_of_ids_are_found(engine: Engine) -> None:
    one, two = engine.create("busybox", ["true"], name="alpha"), engine.create("busybox", ["true"])
    assert engine.store.find("alpha") == one
    assert engine.store.find(two.id) == engine.store.find(two.id[:11]) == engine.store.find(two.name) == two
    for wanted in ("", "nope", "/", "..", "../containers", "al"):
        with pytest.raises(EngineError):
            engine.store.find(wanted)
    engine.remove(one)
    engine.remove(two)


def test_many_removals_of_the_same_container_leave_nothing(minicontainer: Command) -> None:
    minicontainer("create", "--name", "alpha", "busybox", "true")
    processes = [
        subprocess.Popen(minicontainer.line(*command), stdout=-1, stderr=-1, text=True)
        for command in [("rm", "alpha"), ("rm", "-f", "alpha"), ("system", "repair"), ("rm", "alpha")]
    ]
    for process in processes:
        _out, err = process.communicate(timeout=DEADLINE)
        assert "Traceback" not in err, err
    assert minicontainer.containers() == []


# A state directory that somebody was in


def damage(what: str, root: Path, container_id: str) -> None:
    """Do to a state directory what a half-finished rm -r, a full disk or an editor would do."""
    directory = root / "containers" / container_id
    match what.split(" ", 1):
        case ["remove", name]:
            path = directory / name if name else directory
            subprocess.run(["rm", "-rf", path], check=True)
        case ["empty", name]:
            (directory / name).write_text("")
        case ["spoil", name]:
            (directory / name).write_bytes(b"\xff{nonsense")
        case ["replace", name]:
            (directory / name).write_text("[]")
        case ["top", name]:
            subprocess.run(["rm", "-rf", root / name], check=True)
        case ["file", name]:
            subprocess.run(["rm", "-rf", root / name], check=True)
            (root / name).write_text("")


DAMAGES = [
    *(f"remove {name}" for name in ("upper", "work", "merged", "config.json", "state.json", "")),
    *(f"{how} {name}" for how in ("empty", "spoil", "replace") for name in ("config.json", "state.json")),
    *(f"{how} {name}" for how in ("top", "file") for name in ("containers", "names")),
    "top lock",
]


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_state_directory_is_told_in_one_line_and_repaired(minicontainer: Command, what: str) -> None:
    created = minicontainer("create", "--name", "alpha", "busybox", "true").stdout.strip()
    damage(what, minicontainer.root, created)
    for command in (
        ["start", "alpha"],
        ["ps", "-a"],
        ["wait", "alpha"],
        ["run", "--rm", "busybox", "true"],
        ["rm", "alpha"],
    ):
        done = minicontainer(*command)
        assert "Traceback" not in done.stderr, f"{command} after {what}"
        assert done.stderr.count("\n") == (1 if done.returncode else 0), f"{command} after {what}: {done.stderr}"
    done = minicontainer("system", "repair")
    if what.startswith("file"):
        assert done.returncode == 125 and done.stderr.count("\n") == 1  # somebody's file: not ours to remove
        return
    assert (done.returncode, done.stderr) == (0, "")
    minicontainer("rm", "-f", "alpha")
    if what in ("replace config.json", "remove state.json", "top containers", "top names"):
        return  # it may be of a version to come; or the container is there and has lost its name
    assert minicontainer.containers() == []
    assert minicontainer("create", "--name", "alpha", "busybox", "true").returncode == 0
    assert minicontainer("rm", "alpha").returncode == 0


def test_config_goes_to_disk_and_comes_back_the_same(engine: Engine) -> None:
    config = engine.create(
        "busybox", ["echo", "\udcff", "ä\n"], name="alpha", hostname="h", env=("A=\udcff",), cwd="/tmp", shared=("uts",),
        volumes=(("/", "/v", True),), limits=Limits(1 << 30, 0.5, 7),
    )  # fmt: skip
    assert engine.store.config(config.id) == config
    assert json.loads(Path(engine.store.directory(config.id), "config.json").read_bytes())
    engine.remove(config)


def test_repair_does_not_touch_what_lives(minicontainer: Command, tmp_path: Path) -> None:
    """Not what runs, and not what is just being born, which looks much like what was killed while it was."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "mine.py").write_text(
        f"# %%exercise volume.pick_up\ndef pick_up(source):\n    open({str(gate)!r}).read()\n    return open_tree(source, 1)\n"
    )
    with minicontainer.running(
        "run", "--name", "runs", "-m", "64m", "busybox", "sh", "-c", "echo up; sleep 600"
    ) as runs:
        line_of(runs.stdout)
        born = Command(minicontainer.root, [*minicontainer.words])
        arguments = ["run", "--rm", "--name", "born", "-v", f"{tmp_path}:/v", "busybox", "echo", "alive"]
        with subprocess.Popen(
            [*born.words, "--root", born.root, "--steps", tmp_path / "mine.py", *arguments],
            stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True,
        ) as process:  # fmt: skip
            with open(gate, "w"):  # it is open: the step waits
                repaired = minicontainer("system", "repair")
                assert (repaired.stdout, repaired.stderr) == ("", "")
                removed = minicontainer("rm", "born")
                assert removed.returncode == 1 and "being started" in removed.stderr
            assert process.communicate(timeout=DEADLINE) == ("alive\n", "")
        assert "runs" in minicontainer("ps").stdout
        assert minicontainer("rm", "-f", "runs").returncode == 0
        assert runs.wait(DEADLINE) == 137


def test_wait_from_another_process_tells_the_status(minicontainer: Command) -> None:
    for options in ([], ["--rm"]):
        with minicontainer.running(
            "run", *options, "--name", "alpha", "-i", "busybox", "sh", "-c", "echo up; read x; exit 7", stdin=-1
        ) as runs:
            line_of(runs.stdout)
            with minicontainer.running("wait", "alpha") as waits:
                wait_until(
                    lambda: " flock" in _wchan(waits.pid) or "flock" in _wchan(waits.pid), "it waits for the lock"
                )
                assert runs.stdin
                runs.stdin.write("\n")
                runs.stdin.flush()
                assert (waits.communicate(timeout=DEADLINE), waits.returncode) == (("7\n", ""), 0)
        minicontainer("rm", "alpha")


def _wchan(pid: int) -> str:
    """The system call that a process is in: flock is 73 on x86_64 and 32 on aarch64."""
    number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return "flock" if number in ("73", "32") else number


def test_the_steps_of_somebody_else(state_root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "# %%exercise uts.set_names\ndef set_names(host, domain=None):\n    unshare(CLONE_NEWUTS)\n    sethostname(host[::-1])\n"
    )
    engine = Engine(state_root, tmp_path / "mine.py")
    assert engine.run("busybox", ["hostname"], hostname="alpha", capture=True).stdout == "ahpla\n"


def test_a_build_root_of_somebody_else_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "# %%exercise chroot.build_root\ndef build_root(root, busybox):\n    raise ValueError('mine')\n"
    )
    engine = Engine(tmp_path / "state", tmp_path / "mine.py")
    with pytest.raises((EngineError, StartError), match=r"chroot\.build_root.*mine"):
        engine.run("busybox", ["true"])
    assert Engine(tmp_path / "state").run("busybox", ["true"]).status == 0, "the broken image must not stay"


def test_the_image_is_built_once_by_many(tmp_path: Path) -> None:
    command = Command(tmp_path / "state")
    processes = [
        subprocess.Popen(
            command.line("run", "--rm", "busybox", "echo", "up"), stdin=-3, stdout=-1, stderr=-1, text=True
        )
        for _ in range(4)
    ]
    assert [process.communicate(timeout=60) for process in processes] == [("up\n", "")] * 4
    assert len(os.listdir(tmp_path / "state/layers")) == 1 and not os.listdir(tmp_path / "state/images/ingest")


def test_importing_the_engine_starts_nothing() -> None:
    program = "import minicontainer.engine, os; print(len(os.listdir('/proc/self/task')), os.listdir('/proc/self/fd'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("1 ['0', '1', '2', '3']")
