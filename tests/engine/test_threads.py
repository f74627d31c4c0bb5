"""The engine in a process with threads, such as a notebook's kernel: it starts containers through its zygote."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.command import DEADLINE, Command, line_of, needs_root, wait_until
from tests.host_state import HostUnchanged, children

pytestmark = needs_root

PRELUDE = """
import os, signal, sys, threading
from minicontainer.engine import Engine, EngineError
from minicontainer.linux import Namespace
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.limits import Limits

quiet = threading.Event()
threading.Thread(target=quiet.wait, daemon=True).start()  # one is enough to make fork and unshare dangerous
assert len(os.listdir("/proc/self/task")) > 1
engine = Engine(sys.argv[1])
before = {kind: kind.link() for kind in Namespace}
"""
EPILOGUE = """
assert before == {kind: kind.link() for kind in Namespace}, "the process has isolated itself"
"""


def threaded(state: Path, program: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program with threads; it must be silent on standard error."""
    command = [
        sys.executable,
        "-W",
        "error::DeprecationWarning",
        "-c",
        PRELUDE + textwrap.dedent(program) + EPILOGUE,
        state,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert Command(state).containers() == []
    return done


def test_run(state_root: Path) -> None:
    done = threaded(
        state_root,
        """
        result = engine.run("busybox", ["sh", "-c", "hostname; echo err >&2; exit 3"], hostname="alpha", capture=True)
        print(result.status, repr(result.stdout), repr(result.stderr))
        print(engine.run("busybox", ["echo", "straight"], limits=Limits(pids=20, memory=64 << 20)).status, flush=True)
        """,
    )
    assert done.stdout.splitlines() == ["straight", "3 'alpha\\n' 'err\\n'", "0"] or done.stdout.splitlines() == [
        "3 'alpha\\n' 'err\\n'", "straight", "0",
    ]  # fmt: skip


def test_started(state_root: Path) -> None:
    threaded(
        state_root,
        """
        with engine.started("busybox", ["sleep", "600"], hostname="alpha") as container:
            for kind in Namespace:
                assert (kind.link(container.pid) == kind.link()) == (kind is Namespace.USER), kind
            pidfd = os.pidfd_open(container.pid)
        try:
            signal.pidfd_send_signal(pidfd, 0)
            raise AssertionError("it lives on")
        except ProcessLookupError:
            pass
        """,
    )


def test_errors_arrive_whole(state_root: Path) -> None:
    done = threaded(
        state_root,
        """
        for args, options in ((["nope"], {}), (["true"], {"cwd": "/nowhere"}), (["true"], {"name": "a/b"})):
            try:
                engine.run("busybox", args, **options)
            except (StartError, EngineError) as error:
                print(type(error).__name__, error.exit_code, error)
        """,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("StartError 127 nope: not found in the container's PATH")
    assert "/nowhere" in lines[1] and lines[1].startswith("StartError 12")
    assert lines[2].startswith("EngineError 125")


def test_a_step_of_somebody_else_that_fails(state_root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "# %%exercise uts.set_names\ndef set_names(host, domain=None):\n    sethostname('x' * 65)\n"
    )
    done = threaded(
        state_root,
        f"""
        engine = Engine(sys.argv[1], {str(tmp_path / "mine.py")!r})
        try:
            engine.run("busybox", ["true"])
        except StartError as error:
            print(error.step, error.errno, error.exit_code)
        """,
    )
    assert done.stdout == "uts.set_names 22 125\n"


def test_several_threads_at_once(state_root: Path) -> None:
    done = threaded(
        state_root,
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda n: engine.run("busybox", ["sh", "-c", f"echo {n}; exit {n}"], capture=True), range(32)))
        assert [(r.status, r.stdout) for r in results] == [(n, f"{n}\\n") for n in range(32)]
        with engine.started("busybox", ["sleep", "600"]) as one, engine.started("busybox", ["sleep", "600"]) as two:
            assert one.pid != two.pid
        """,
    )
    assert done.stdout == ""


def test_no_file_is_left_open(state_root: Path) -> None:
    threaded(
        state_root,
        """
        engine.run("busybox", ["true"])
        files = sorted(os.listdir("/proc/self/fd"))
        for _ in range(5):
            engine.run("busybox", ["true"], capture=True)
            with engine.started("busybox", ["sleep", "600"]):
                pass
            try:
                engine.run("busybox", ["nope"])
            except StartError:
                pass
        assert sorted(os.listdir("/proc/self/fd")) == files
        """,
    )


def test_after_a_fork_the_child_has_a_zygote_of_its_own(state_root: Path) -> None:
    done = threaded(
        state_root,
        """
        import warnings
        warnings.simplefilter("ignore")
        engine.run("busybox", ["true"])
        child = os.fork()
        if child == 0:
            os._exit(engine.run("busybox", ["sh", "-c", "exit 5"]).status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        assert engine.run("busybox", ["sh", "-c", "exit 6"]).status == 6
        """,
    )
    assert done.stdout == ""


def test_a_killed_zygote_is_told_or_replaced(state_root: Path) -> None:
    """Not a traceback of sockets: either the next container starts, or one line says what to do."""
    done = threaded(
        state_root,
        """
        engine.run("busybox", ["true"])
        from minicontainer.engine import engine as module
        module._helper[0]._helper.kill()
        module._helper[0]._helper.wait()
        print(engine.run("busybox", ["sh", "-c", "exit 6"]).status)
        """,
    )
    assert done.stdout == "6\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_containers_end_with_the_process_that_started_them(state_root: Path, number: signal.Signals) -> None:
    before = set(children(os.getpid()))
    program = PRELUDE + textwrap.dedent("""
        with engine.started("busybox", ["sleep", "600"], limits=Limits(pids=20)) as one:
            with engine.started("busybox", ["sh", "-c", "trap '' TERM INT HUP; sleep 600"]) as two:
                print(one.pid, two.pid, flush=True)
                signal.pause()
    """)
    with subprocess.Popen([sys.executable, "-c", program, state_root], stdout=-1, text=True) as parent:
        try:
            pidfds = [os.pidfd_open(int(pid)) for pid in line_of(parent.stdout).split()]
            assert children(parent.pid), "there is no zygote"
            parent.send_signal(number)
        except BaseException:
            parent.kill()
            raise
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], DEADLINE)[0], "a container lives on"
        os.close(pidfd)
    wait_until(
        lambda: not [pid for pid in children(os.getpid()) if pid not in before and _alive(pid)],
        "the zygote and its children have ended",
    )
    command = Command(state_root)
    assert "which was to go" in command("system", "repair").stdout
    assert command.containers() == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_interrupt_in_the_callers_terminal_does_not_end_the_zygote(state_root: Path) -> None:
    """^C goes to the whole foreground process group; what becomes of its containers is the caller's decision."""
    threaded(
        state_root,
        """
        engine.run("busybox", ["true"])
        signal.signal(signal.SIGINT, lambda *args: None)
        with engine.started("busybox", ["sh", "-c", "sleep 600; exit 1"]) as container:
            os.killpg(os.getpgrp(), signal.SIGINT)
            assert engine.run("busybox", ["sh", "-c", "exit 7"]).status == 7
            os.kill(container.pid, 0)
        """,
        start_new_session=True,
    )


def test_explained(state_root: Path) -> None:
    """The performer records what it and process 1 do; the process with threads is left as it is."""
    done = threaded(
        state_root,
        """
        told = []
        for explained in (told.extend, None):
            engine = Engine(sys.argv[1], explain=explained)
            assert engine.run("busybox", ["true"], hostname="alpha").status == 0
        [named] = [call for call in told if call.name == "sethostname"]
        print(named.process, named.step, named.text, named.page, named.pid in {call.result for call in told})
        assert [call.began for call in told] == sorted(call.began for call in told)
        try:
            Engine(sys.argv[1], explain=told.extend).run("busybox", ["true"], hostname="alpha", cwd="/no")
        except StartError:
            print([call.result for call in told if call.text == 'chdir("/no")'])
        """,
    )
    first, second = done.stdout.splitlines()
    assert first == 'process 1 uts.set_names sethostname("alpha", 5) sethostname(2) True'
    assert second == "[-2]"


def test_explained_to_somebody_who_fails(state_root: Path, host_unchanged: HostUnchanged) -> None:
    with host_unchanged():
        done = threaded(
            state_root,
            """
            def fail(calls):
                raise ZeroDivisionError
            try:
                Engine(sys.argv[1], explain=fail).run("busybox", ["sleep", "600"])
            except ZeroDivisionError:
                print("told", Engine(sys.argv[1]).containers())
            """,
        )
    assert done.stdout == "told []\n"
