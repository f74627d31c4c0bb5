"""Throughput: 256 MiB over one TCP connection between containers on a bridge, out of a container through NAT, and in
through a published port; each beside the same made by hand with ip(8) and nft(8), a bridge, cables, two rules.

The two hosts, each with a neighbour that is "outside", are network namespaces; all takes place in one machine, and what
is compared is the way that the packets go. Python sends and receives on both sides alike, a mebibyte at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import Driven, Goal, Report, take_turns

ROUNDS = 20
AMOUNT = 256 << 20
"""Bytes."""
WAYS = ("bridge", "NAT", "published port")

RULES = """
table ip by_hand {
  chain prerouting { type nat hook prerouting priority -100; tcp dport 8080 dnat to 172.17.0.2:80; }
  chain postrouting { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 oifname != "br0" masquerade; }
}
"""


def measure(rounds: int = ROUNDS) -> Report:
    """All in turns. Raises SystemExit: not root, or `minicontainer` is not installed."""
    if os.geteuid() != 0:
        raise SystemExit("benchmarks: throughput makes bridges, in network namespaces of its own: run it as root")
    program = Path(sys.executable).with_name("minicontainer")
    if not program.exists():
        raise SystemExit(f"benchmarks: there is no {program}: make setup")
    with contextlib.ExitStack() as left:
        directory = left.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        subjects: dict[str, Callable[[], float]] = {}
        for name, make in (("by hand", _by_hand), ("ours", partial(_ours, str(program), directory))):
            host, outside = left.enter_context(_namespace()), left.enter_context(_namespace())
            _cable(host, "uplink", "198.51.100.2/24", outside, "downlink", "198.51.100.1/24")
            _in(host, "ip route add default via 198.51.100.1")
            _in(host, "sysctl -q net.ipv4.ip_forward=1")
            one, two = left.enter_context(make(host))
            for place in (one, outside):
                left.enter_context(_receiver(place))
            for way, (sender, target) in zip(WAYS, (
                (two, "172.17.0.2:80"), (one, "198.51.100.1:80"), (outside, "198.51.100.2:8080")
            ), strict=True):  # fmt: skip
                command = [*_enter(sender), sys.executable, "-m", "benchmarks.throughput", "send", target]
                subjects[f"{way}, {name}"] = partial(left.enter_context(Driven(command)), "")
        series = take_turns(subjects, rounds)
    goals = [Goal(f"{way}, ours", 1.05, beside=f"{way}, by hand") for way in WAYS]
    gigabits = [f"{one.name}: {AMOUNT * 8 / one.median / 1e6:.1f} Gbit/s" for one in series]
    return Report(
        "throughput",
        "Throughput: 256 MiB over one TCP connection",
        "ms",
        series,
        goals[0],
        notes=gigabits,
        more_goals=goals[1:],
    )


# Places: the pid of a process in a network namespace


def _enter(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def _in(pid: int, command: str, **options: str) -> None:
    subprocess.run([*_enter(pid), *command.split()], check=True, text=True, **options)  # type: ignore[call-overload]


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec cat"]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    try:
        holder.stdout.readline()
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


def _cable(one: int, name: str, address: str, other: int, others: str, others_address: str) -> None:
    _in(one, f"ip link add {name} type veth peer name {others} netns {other}")
    for place, device, wanted in ((one, name, address), (other, others, others_address)):
        if wanted:
            _in(place, f"ip address add {wanted} dev {device}")
        _in(place, f"ip link set {device} up")


@contextlib.contextmanager
def _by_hand(host: int) -> Iterator[tuple[int, int]]:
    """Two "containers" that are nothing but a network."""
    _in(host, "ip link add br0 type bridge")
    _in(host, "ip address add 172.17.0.1/16 dev br0")
    _in(host, "ip link set br0 up")
    _in(host, "nft -f -", input=RULES)
    with _namespace() as one, _namespace() as two:
        for number, place in enumerate((one, two), 2):
            _cable(host, f"veth{number}", "", place, "eth0", f"172.17.0.{number}/16")
            _in(host, f"ip link set veth{number} master br0")
            _in(place, "ip route add default via 172.17.0.1")
        yield one, two


@contextlib.contextmanager
def _ours(program: str, root: str, host: int) -> Iterator[tuple[int, int]]:
    command = [*_enter(host), program, "--root", f"{root}/state"]
    quiet = {"check": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    run = [*command, "run", "-d", "--network", "bridge"]
    subprocess.run([*run, "--name", "one", "-p", "0.0.0.0:8080:80", "busybox", "sleep", "3600"], **quiet)  # type: ignore[call-overload]
    subprocess.run([*run, "--name", "two", "busybox", "sleep", "3600"], **quiet)  # type: ignore[call-overload]
    try:
        from minicontainer.engine import Engine

        engine = Engine(f"{root}/state")
        one, two = (engine.state(engine.store.find(name)).pid or 0 for name in ("one", "two"))
        yield one, two
    finally:
        subprocess.run([*command, "rm", "-f", "one", "two"], **quiet)  # type: ignore[call-overload]
        subprocess.run([*command, "network", "prune"], **quiet)  # type: ignore[call-overload]
        wait_for_keeper(f"{root}/state")


def wait_for_keeper(state: str) -> None:
    """Until whoever takes idle networks down has seen that there is nothing to be done any more."""
    with contextlib.suppress(FileNotFoundError), open(f"{state}/networks/.keeper") as keeper:
        fcntl.flock(keeper, fcntl.LOCK_EX)


@contextlib.contextmanager
def _receiver(place: int) -> Iterator[None]:
    command = [*_enter(place), sys.executable, "-m", "benchmarks.throughput", "receive"]
    receiver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert receiver.stdout
    try:
        receiver.stdout.readline()
        yield
    finally:
        receiver.kill()
        receiver.wait()
        receiver.stdout.close()


# What runs in there


def receive() -> None:
    """Take what comes at port 80, and answer with a byte when it has ended."""
    listener = socket.create_server(("0.0.0.0", 80))
    print("ready", flush=True)
    buffer = bytearray(1 << 20)
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv_into(buffer):
                pass
            connection.sendall(b"x")


def send(target: str) -> None:
    """For every line, send it all there, and print how many milliseconds passed before the answer."""
    address, _, port = target.partition(":")
    data = bytes(1 << 20)
    for _ in sys.stdin:
        begin = time.perf_counter()
        with socket.create_connection((address, int(port))) as connection:
            for _ in range(AMOUNT // len(data)):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        print(f"{(time.perf_counter() - begin) * 1000:.4f}", flush=True)


if __name__ == "__main__":
    receive() if sys.argv[1] == "receive" else send(sys.argv[2])
