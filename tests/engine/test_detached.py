"""Containers that nobody stays with: their process 1 keeps what has to be kept, and the next look finds the truth."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine import Engine, EngineError
from minicontainer.engine.rights import CAPABILITIES, Rights
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import Namespace
from minicontainer.linux.capabilities import mask_of
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import Limits
from minicontainer.steps.group import find_group
from tests.command import Command, needs_root, wait_until
from tests.host_state import HostUnchanged

pytestmark = needs_root


@pytest.fixture
def engine(state_root: Path) -> Iterator[Engine]:
    """An engine with a state directory of its own; nothing is left of its containers."""
    engine = Engine(state_root)
    yield engine
    for config, _ in engine.containers():
        engine.remove(config, force=True)
    assert Command(state_root).containers() == []


def log_of(engine: Engine, config: Config) -> list[str]:
    """Its log without the times."""
    return [line.partition(" ")[2] for line in Path(engine.store.log(config.id)).read_text().splitlines()]


def ended(engine: Engine, config: Config) -> State:
    """Its state once it has ended."""
    return wait_until(lambda: (state := engine.state(config)).status == "exited" and state, "it ends")  # type: ignore[no-any-return]


def files_of(pid: int) -> dict[int, str]:
    """What a process has open."""
    return {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def test_its_output_is_kept_in_order_with_the_stream_of_each_line(engine: Engine) -> None:
    script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three; printf half; exit 9"
    config = engine.run_detached("busybox", ["sh", "-c", script])
    assert engine.wait(config) == 9
    assert log_of(engine, config) == ["stdout F one", "stderr F two", "stdout F three", "stdout P half"] or log_of(
        engine, config
    ) == ["stdout F one", "stderr F two", "stdout F three", "stdout P half"]


def test_who_opens_its_output_again_empties_nothing(engine: Engine) -> None:
    """``> /dev/stderr`` truncates a file, and not a pipe."""
    config = engine.run_detached("busybox", ["sh", "-c", "echo a >&2; echo b > /dev/stderr; echo c > /proc/self/fd/2"])
    engine.wait(config)
    assert log_of(engine, config) == ["stderr F a", "stderr F b", "stderr F c"]


def test_much_output_is_all_there(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["seq", "1", "100000"])
    assert engine.wait(config) == 0
    pieces = [line.split(" ", 3) for line in Path(engine.store.log(config.id)).read_text().splitlines()]
    text = "".join(piece + ("\n" if kind == "F" else "") for _, _, kind, piece in pieces)
    assert text == "".join(f"{number}\n" for number in range(1, 100001))


def test_process_1_holds_its_own_files_and_nobody_elses(engine: Engine) -> None:
    """The record, the log, two pipes; nothing of the caller's, and nothing of ours in the program."""
    kept = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(kept, True)
    config = engine.run_detached("busybox", ["sleep", "600"])
    os.close(kept)
    pid = engine.state(config).pid or 0
    directory = engine.store.directory(config.id)
    # The copier may still be making itself ready when the program runs already.
    wait_until(lambda: set(files_of(pid)) == {0, 1, 2, 3, 4, 5, 6}, "process 1 has let go of everything else")
    files = files_of(pid)
    assert [files[number] for number in range(5)] == ["/dev/null"] * 3 + [f"{directory}/attended", f"{directory}/log"]
    assert files[5].startswith("pipe:") and files[6].startswith("pipe:")
    [program] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    inside = files_of(int(program))
    assert set(inside) == {0, 1, 2} and inside[0] == "/dev/null" and inside[1] == files[5] and inside[2] == files[6]


def test_the_status_is_recorded_without_anybody_who_waits(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sh", "-c", "exit 42"], limits=Limits(pids=20))
    state = ended(engine, config)
    assert (state.exit_code, state.oom_killed, state.detached) == (42, False, False)
    assert state.began and state.finished and state.began <= state.finished
    assert find_group(config.group).places == {}, "who looked has put away what was left"
    assert engine.wait(config) == 42 and Engine(engine.store.root).wait(config) == 42


def test_process_1_that_is_killed_leaves_137(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"])
    os.kill(engine.state(config).pid or 0, signal.SIGKILL)
    assert engine.wait(config) == 137
    assert ended(engine, config).exit_code == 137


def test_the_end_of_memory_is_told(engine: Engine) -> None:
    script = "x=a; while :; do x=$x$x; done"
    config = engine.run_detached("busybox", ["sh", "-c", script], limits=Limits(memory=16 << 20))
    state = ended(engine, config)
    assert (state.exit_code, state.oom_killed) == (137, True)


def test_it_starts_again_and_its_log_goes_on(engine: Engine) -> None:
    config = engine.create("busybox", ["sh", "-c", "echo up; exit 3"])
    for _ in range(2):
        engine.start_detached(config)
        assert engine.wait(config) == 3
    assert log_of(engine, config) == ["stdout F up", "stdout F up"]


def test_what_cannot_be_started_stays_created(engine: Engine) -> None:
    config = engine.create("busybox", ["nope"])
    with pytest.raises(StartError) as raised:
        engine.start_detached(config)
    assert raised.value.exit_code == 127
    assert engine.state(config).status == "created"
    with pytest.raises(EngineError, match="was not started"):
        engine.wait(config)


def test_what_cannot_run_by_itself_is_told(engine: Engine) -> None:
    with pytest.raises(EngineError, match="at least 3"):
        engine.run_detached("busybox", ["true"], limits=Limits(pids=2))


def test_what_runs_cannot_be_started_twice(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"])
    for start in (engine.start_detached, Engine(engine.store.root).start):
        with pytest.raises(EngineError, match="runs already"):
            start(config)
    with pytest.raises(EngineError, match="runs; stop it first"):
        engine.remove(config)


def test_what_is_to_go_when_it_ends_goes_at_the_next_look(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["true"], remove=True)
    wait_until(lambda: not engine.containers(), "it is gone")
    assert not os.path.exists(engine.store.directory(config.id))
    config = engine.run_detached("busybox", ["true"], remove=True)
    engine.store.wait(config.id)
    assert engine.repair() == [f'container "{config.name}" has ended, and was to go then']


def test_stop_is_sigterm_and_then_sigkill(engine: Engine) -> None:
    soft = engine.run_detached("busybox", ["sleep", "600"])
    engine.stop(soft)
    assert engine.state(soft).exit_code == 128 + signal.SIGTERM
    hard = engine.run_detached("busybox", ["sh", "-c", "trap 'echo no' TERM; echo up; while :; do sleep 0.05; done"])
    wait_until(lambda: log_of(engine, hard), "the trap is set")
    engine.stop(hard, 0.3)
    assert engine.state(hard).exit_code == 128 + signal.SIGKILL
    assert log_of(engine, hard)[:2] == ["stdout F up", "stdout F no"]
    engine.stop(hard)  # has ended already


def test_stop_of_a_paused_one(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"])
    if "freezer" not in find_group(config.group):
        pytest.skip("no freezer here")
    engine.pause(config)
    with pytest.raises(EngineError, match="is paused"):
        engine.exec(config, ["true"])
    engine.stop(config)
    assert engine.state(config).exit_code == 128 + signal.SIGTERM
    engine.start_detached(config)
    engine.pause(config)
    engine.send(config, signal.SIGKILL)
    assert engine.wait(config) == 137


def test_signals_reach_the_program(engine: Engine) -> None:
    script = "trap 'echo usr1' USR1; trap 'echo hup; exit 5' HUP; echo up; while :; do sleep 0.05; done"
    config = engine.run_detached("busybox", ["sh", "-c", script])
    wait_until(lambda: len(log_of(engine, config)) == 1, "the traps are set")
    engine.send(config, signal.SIGUSR1)
    wait_until(lambda: len(log_of(engine, config)) == 2, "it is heard")
    pid = engine.state(config).pid or 0
    program = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    stopped = lambda: Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[0] == "T"  # noqa: E731
    engine.send(config, signal.SIGSTOP)  # cannot be passed on by process 1
    wait_until(stopped, "it stands")
    engine.send(config, signal.SIGCONT)
    wait_until(lambda: not stopped(), "it goes on")
    engine.send(config, signal.SIGHUP)
    assert engine.wait(config) == 5
    assert log_of(engine, config) == ["stdout F up", "stdout F usr1", "stdout F hup"]
    with pytest.raises(EngineError, match="does not run"):
        engine.send(config, signal.SIGTERM)


# Another program in it


def ran(engine: Engine, config: Config, script: str, **options: object) -> tuple[int, str]:
    """The status and the output of a script in a container that runs."""
    read, write = os.pipe()
    running = engine.exec(config, ["sh", "-c", script], (None, write, write), **options)  # type: ignore[arg-type]
    os.close(write)
    with os.fdopen(read) as text:
        said = text.read()
    status = running.wait()
    os.close(running.pidfd)
    return status, said


def test_exec_shares_namespaces_limits_and_rights(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"], hostname="alpha", limits=Limits(pids=30))
    pid = engine.state(config).pid or 0
    read, write = os.pipe()
    running = engine.exec(config, ["sh", "-c", "echo up; read x < /nowhere; sleep 600"], (None, write, 2))
    os.close(write)
    try:
        with os.fdopen(read) as text:
            assert text.readline() == "up\n"
        for kind in Namespace:
            assert kind.link(running.pid) == kind.link(pid), kind
        for file in (find_group(config.group).places[name][1] for name in ("pids", "memory")):
            assert str(running.pid) in Path(f"{file}/cgroup.procs").read_text().split()
        status = Path(f"/proc/{running.pid}/status").read_text()
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert f"{name}:\t{mask_of(CAPABILITIES):016x}" in status
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    finally:
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        assert running.wait() == 137
        os.close(running.pidfd)
    status, said = ran(engine, config, "hostname; mount -t tmpfs x /tmp; exit 4")
    assert status == 4 and said.startswith("alpha\n") and "denied" in said
    assert engine.state(config).status == "running"


def test_exec_with_wishes_of_its_own(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"], rights=Rights(read_only=True))
    script = "id -u; id -g; pwd; echo $A; touch /x"
    status, said = ran(engine, config, script, user=(5, 6), cwd="/etc", env=("A=b",))
    assert status == 1 and said.splitlines()[:4] == ["5", "6", "/etc", "b"]
    with pytest.raises(StartError) as raised:
        engine.exec(config, ["nope"])
    assert raised.value.exit_code == 127
    with pytest.raises(StartError) as raised:
        engine.exec(config, ["true"], cwd="/nowhere")
    assert raised.value.exit_code == 125 and "/nowhere" in str(raised.value)
    with pytest.raises(EngineError, match="no command"):
        engine.exec(config, [])


def test_two_at_once_and_one_that_is_left_alone(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"])
    both = [engine.exec(config, ["sh", "-c", f"exit {number}"], (None, 1, 2)) for number in (3, 4)]
    assert [running.wait() for running in both] == [3, 4]
    left = engine.exec(config, ["sleep", "600"], (None, None, None), alone=True)
    assert left.wait() == 0
    for running in (*both, left):
        os.close(running.pidfd)
    pid = engine.state(config).pid or 0
    children = wait_until(
        lambda: len(found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 2 and found,
        "process 1 has adopted it",
    )
    os.kill(int(children[1]), signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{children[1]}"), "process 1 buries it")


def test_nothing_runs_in_what_has_ended(engine: Engine) -> None:
    config = engine.run_detached("busybox", ["true"])
    engine.wait(config)
    with pytest.raises(EngineError, match="does not run") as raised:
        engine.exec(config, ["true"])
    assert raised.value.exit_code == 1


def test_it_does_not_outlive_its_removal(engine: Engine) -> None:
    configs = [engine.run_detached("busybox", ["sh", "-c", "sleep 600 & sleep 600"]) for _ in range(3)]
    pidfds = [os.pidfd_open(engine.state(config).pid or 0) for config in configs]
    for config in configs:
        engine.remove(config, force=True)
    for pidfd in pidfds:
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0) if os.waitid(os.P_PIDFD, pidfd, os.WEXITED) else None
            signal.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)
    assert engine.containers() == []


def test_a_caller_with_threads_is_sent_to_the_command(state_root: Path) -> None:
    program = (
        "import threading, sys; from minicontainer.engine import Engine, EngineError\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "try: Engine(sys.argv[1]).run_detached('busybox', ['true'])\n"
        "except EngineError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, state_root], capture_output=True, text=True)
    assert "several threads" in done.stdout, done.stderr
    assert Command(state_root).containers() == []


@pytest.mark.parametrize("way", ["run", "run_detached", "started"])
@pytest.mark.parametrize("what", ["explain fails", "the disk is full"])
def test_what_fails_when_the_program_runs_already_takes_it_along(
    state_root: Path, way: str, what: str, monkeypatch: pytest.MonkeyPatch, host_unchanged: HostUnchanged
) -> None:
    """Else it would run on, and nobody would know of it."""
    engine = Engine(state_root, explain=_fail if what == "explain fails" else None)
    write = Store.set_state

    def full(store: Store, container_id: str, state: State) -> None:
        if state.status == "running":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(store, container_id, state)

    if what == "the disk is full":
        monkeypatch.setattr(Store, "set_state", full)
    error = ZeroDivisionError if what == "explain fails" else OSError
    with host_unchanged():
        with pytest.raises(error):
            if way == "started":
                engine.started("busybox", ["sleep", "600"]).__enter__()
            else:
                getattr(engine, way)("busybox", ["sleep", "600"])
        assert Command(state_root).containers() == []


def test_so_does_exec(state_root: Path, engine: Engine) -> None:
    config = engine.run_detached("busybox", ["sleep", "600"])
    with pytest.raises(ZeroDivisionError):
        Engine(state_root, explain=_fail).exec(config, ["sleep", "601"])
    assert engine.state(config).status == "running"
    running = engine.exec(config, ["ps", "-o", "args"], (None, listing := os.memfd_create("ps"), None))
    assert running.wait() == 0
    os.close(running.pidfd)
    with os.fdopen(listing, "r") as file:
        file.seek(0)
        assert "sleep 601" not in file.read()


def _fail(calls: object) -> None:
    raise ZeroDivisionError
