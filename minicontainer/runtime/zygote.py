"""Starting containers from a process that has threads, a Jupyter kernel for one, through a small helper without any.

In a process with several threads unshare(CLONE_NEWUSER) fails, and a fork copies locks whose owners it does not copy.
So such a process keeps a helper (Android's word for it is zygote): a plain Python that has only the runtime loaded. It
forks a performer for each container, which starts it, waits for it, and tells how it ended.

    the caller ──(specification, three files, one end of a line)──▶ zygote ──fork──▶ performer ──▶ init ──▶ program
        ◀─────────────────── the line: started, pidfd … later: ended, status ───────────┘

When the caller ends, however it ends, the zygote reads end-of-file and ends, then by PR_SET_PDEATHSIG the performers,
then the containers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys

import minicontainer
from minicontainer.linux import PR_SET_PDEATHSIG, prctl
from minicontainer.runtime.birth import Connect, Running, start
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.program import Stdio
from minicontainer.runtime.spec import Spec
from minicontainer.runtime.substitute import load_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.linux.recording import Told

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from minicontainer.runtime.zygote import serve; serve()"


class Remote(Running):
    """A container that somebody else's child is: it is waited for over the line to its performer."""

    line: socket.socket | None = None

    def wait(self) -> int:
        """Wait until the container has ended, and return its exit status."""
        assert self.line is not None
        with self.line:
            data = self.line.recv(1 << 16)
        if not data:
            return 128 + signal.SIGKILL  # the performer is dead, and with it (die_with_parent) the container
        status: int = pickle.loads(data)
        return status


class Zygote:
    """The caller's side. One is enough for a process; calls from several threads do not disturb each other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, os.path.dirname(minicontainer.__path__[0])],
                stdin=theirs.fileno(),
                close_fds=True,
            )
        self._line = ours

    def start(
        self,
        spec: Spec,
        steps: str | None,
        stdio: Stdio,
        connect: Connect | None = None,
        explain: Told | None = None,
    ) -> Remote:
        """Start a container as `minicontainer.runtime.birth.start` does;

        `steps` is a notebook or module to load over ours. `connect` must be something that can be pickled. `explain`
        gets the system calls that it took.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        present = [fd for fd in stdio if fd is not None]
        calls = os.memfd_create("calls") if explain else None
        request = pickle.dumps((spec, steps, [fd is not None for fd in stdio], connect, calls is not None))
        with theirs:
            files = [theirs.fileno(), *present, *([] if calls is None else [calls]), *spec.process.preserve_fds]
            socket.send_fds(self._line, [request], files)
        data, fds, _, _ = socket.recv_fds(ours, 1 << 16, 2)
        if explain and calls is not None:
            with open(calls, "rb") as file:
                file.seek(0)
                if recorded := file.read():
                    explain(pickle.loads(recorded))
        if not data:
            raise StartError(
                "the helper that starts containers for this process is dead; start the process (kernel) again"
            )
        answer = pickle.loads(data)
        if isinstance(answer, Exception):
            ours.close()
            raise answer
        return Remote(answer["pid"], fds[0], fds[1] if len(fds) > 1 else None, answer["group"], ours)

    @property
    def alive(self) -> bool:
        """Whether the helper is there."""
        return self._helper.poll() is None

    def close(self) -> None:
        """End the helper, and with it every container that it started."""
        self._line.close()
        self._helper.wait()


def serve() -> None:
    """The helper: fork a performer for each request on standard input, until it closes."""
    line = socket.socket(fileno=os.dup(0))
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # ^C in the terminal is for the caller, who decides about its containers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for performers
    while True:
        data, fds, _, _ = socket.recv_fds(line, 1 << 20, 64)
        if not data:
            return
        if os.fork() == 0:
            with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
                line.close()
                _perform(data, fds)
            os._exit(0)
        for fd in fds:
            os.close(fd)


def _perform(request: bytes, fds: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers, *files = socket.socket(fileno=fds[0]), *fds[1:]
    spec, steps, present, connect, explained = pickle.loads(request)
    stdio = tuple(files.pop(0) if there else None for there in present)
    calls = files.pop(0) if explained else None
    try:
        process = _with_fds(spec, files)
        with _explained(calls):
            running = start(process, load_steps(steps), stdio, connect=connect)  # type: ignore[arg-type]
    except Exception as error:
        answers.send(pickle.dumps(error if isinstance(error, StartError) else StartError(str(error))))
        return
    for fd in (*stdio, *files):
        if fd is not None:
            os.close(fd)  # or a pipe would stay open in us after the program has closed it
    handles = [fd for fd in (running.pidfd, running.console) if fd is not None]
    socket.send_fds(answers, [pickle.dumps({"pid": running.pid, "group": running.group})], handles)
    answers.send(pickle.dumps(running.wait()))


def _explained(file: int | None) -> contextlib.AbstractContextManager[None]:
    """Record what is done, and write it to that file."""
    if file is None:
        return contextlib.nullcontext()
    from minicontainer.linux.recording import recording
    from minicontainer.steps import step_of

    def written(calls: object) -> None:
        with open(file, "wb") as opened:
            opened.write(pickle.dumps(calls))

    return recording(written, step_of)


def _with_fds(spec: Spec, fds: list[int]) -> Spec:
    """The specification with the numbers that its preserved files have here."""
    return spec.replace(process=spec.process.replace(preserve_fds=fds))
