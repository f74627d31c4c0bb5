"""A container that is started and stopped over and over, with a network, a port and a volume: nothing of it grows.

The network is one of the test's own, and what is counted there the programs of others count. The engine is called from
here, so that its own open files are counted, too. ``pytest --rounds 500 tests/engine/test_rounds.py`` goes on for longer.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from minicontainer.linux.cgroups import hierarchies
from minicontainer.network.wishes import read_attachment, read_ports
from tests.command import needs_root, wait_until
from tests.host_state import bury_the_dead
from tests.neighbourhood import Host

pytestmark = needs_root


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many."""
    return int(request.config.getoption("--rounds"))


def counts(host: Host, engine: Engine) -> Counter[str]:
    """How many there are of everything that a container has; of processes and groups, of those that are ours."""
    bury_the_dead()  # process 1, whose parent is who has started it, and that is we
    found = Counter(mounts=Path("/proc/self/mountinfo").read_text().count("\n"))
    found["links"] = host("ip", "-o", "link").count("\n")
    found["addresses"] = host("ip", "-o", "-4", "address").count("\n")  # those of IPv6 come when they like
    found["routes"] = host("ip", "-4", "route", "show", "table", "all").count("\n")
    found["rules and elements"] = sum(map(host("nft", "list", "ruleset").count, "\n,"))
    found["open files"] = len(os.listdir("/proc/self/fd"))
    ids = [config.id for config in engine.store.all()]
    homes = [f"{tree.home()}/minicontainer" for tree in hierarchies(named=True)]
    found["groups"] = sum(os.path.isdir(f"{home}/{one}") for home in homes for one in ids)
    found["files"] = sum(len(files) + len(below) for _, below, files in os.walk(f"{engine.store.root}/containers"))
    ours = os.fsencode(engine.store.root)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            found["processes"] += parent == os.getpid() or ours in (process / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
    return found


def gone(host: Host, engine: Engine) -> None:
    """Whatever has become of the test."""
    with host.entered():
        for config in engine.store.all():
            engine.remove(config, force=True, volumes=True)
        engine.volumes().prune(named=True)
    bury_the_dead()


@pytest.mark.parametrize("process_1", ["ours", "its own"])
def test_starts_and_stops(
    host: Host, state_root: Path, rounds: int, process_1: str, request: pytest.FixtureRequest
) -> None:
    """After the second everything is as after the last: the first has made a bridge, a log and whatever is imported."""
    engine = Engine(state_root)
    with host.entered():
        config = engine.create(
            "busybox",
            ["sleep", "600"],
            reaper=process_1 == "ours",
            networks=(read_attachment("bridge"),),
            ports=tuple(read_ports("8080:80")),
            mounts=(("volume", "data", "/data", ()),),
            stop_signal="SIGKILL",
        )
        keeps = engine.create("busybox", ["sleep", "600"], networks=(read_attachment("bridge"),))
        engine.start_detached(keeps)  # so that the bridge stays, and who answers for names

        request.addfinalizer(lambda: gone(host, engine))

        def once() -> None:
            engine.start_detached(config)
            engine.stop(config, 0)
            assert engine.state(config).exit_code == 137

        for _ in range(2):
            once()
        before = counts(host, engine)
        assert before["links"] >= 3 and before["rules and elements"] > 20, "there is no network to look at"
        for _ in range(rounds):
            once()
        after = Counter[str]()

        def as_before() -> bool:
            after.clear()
            after.update(counts(host, engine))
            return after == before  # a cable goes by itself a moment after its container

        with contextlib.suppress(pytest.fail.Exception):
            wait_until(as_before, "everything is as before")
        assert after == before
