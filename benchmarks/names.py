"""Names: a question to a network's name server and its answer, over UDP, for the name of a container; and for a name
that the server has to ask another for.

Beside it an answer without a thought: a server in Python that sends back what it gets. The difference is what reading
the question, looking the name up and writing the answer takes. All in a network namespace of its own, with one
container; the other server is on its loopback.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measure import Goal, Report, Series, apart, take_turns
from benchmarks.networks import _ip, _kept_up
from benchmarks.throughput import wait_for_keeper
from minicontainer.linux import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

ROUNDS = 300
KNOWN, FORWARDED, ECHO = "a container's name", "a name that is asked of another", "a server that only sends it back"
ELSEWHERE, ANSWER = "127.0.0.53", bytes([192, 0, 2, 7])


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or `minicontainer` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: names makes a bridge, in a network namespace of its own: run it as root")
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        answer = apart(partial(_rounds, str(program), Path(directory), rounds))
    return Report(
        "names",
        "Names: one question and its answer",
        "µs",
        [Series(name, samples) for name, samples in answer["series"].items()],
        Goal(KNOWN, 1000.0),
        more_goals=[Goal(FORWARDED, 1000.0)],
    )


def _rounds(program: str, work: Path, rounds: int) -> dict[str, object]:
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    resolvers = work / "resolv.conf"
    resolvers.write_text(f"nameserver {ELSEWHERE}\n")
    mount(str(resolvers), os.path.realpath("/etc/resolv.conf"), None, 4096)  # MS_BIND: what the server asks
    _ip("link set lo up")
    state = work / "state"
    with _kept_up(program, state), _answering(_resolver, (ELSEWHERE, 53)), _answering(bytes, ("127.0.0.1", 5353)):
        gateway = ("172.17.0.1", 53)
        subjects: dict[str, Callable[[], float]] = {
            KNOWN: partial(_ask, gateway, _question("keeper")),
            FORWARDED: partial(_ask, gateway, _question("www.example.org")),
            ECHO: partial(_ask, ("127.0.0.1", 5353), _question("keeper")),
        }
        series = take_turns(subjects, rounds)
    subprocess.run([program, "--root", str(state), "network", "prune"], check=True, stdout=subprocess.DEVNULL)
    wait_for_keeper(str(state))
    return {"series": {taken.name: taken.samples for taken in series}}


def _question(name: str) -> bytes:
    """RFC 1035, 4.1: the address of this name, please."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0\x00\x01\x00\x01"


def _resolver(question: bytes) -> bytes:
    """The answer of somebody who knows every name, and that it is 192.0.2.7."""
    end = question.index(b"\0", 12) + 5
    head = question[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    return head + question[12:end] + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + ANSWER


def _ask(server: tuple[str, int], question: bytes) -> float:
    """In µs. Raises SystemExit: an answer without an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(10)
        line.connect(server)
        begin = time.perf_counter()
        line.send(question)
        answer = line.recv(512)
        taken = (time.perf_counter() - begin) * 1e6
    if answer != question and answer[6:8] != b"\0\1":
        raise SystemExit(f"benchmarks: the name server does not know the name: {answer!r}")
    return taken


@contextmanager
def _answering(answer: Callable[[bytes], bytes], address: tuple[str, int]) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(address)

        def serve() -> None:
            while (said := line.recvfrom(512))[0] != b"end":
                line.sendto(answer(said[0]), said[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", address)
            thread.join()
