"""Networks by way of `Engine`, in this process and in one with threads; and what those pay that have none."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.engine.engine import Engine
from minicontainer.engine.store import Config
from minicontainer.network.wishes import Attachment, Port
from minicontainer.runtime.errors import StartError
from minicontainer.steps import Steps
from tests.command import Command, needs_root, wait_until
from tests.neighbourhood import Host

pytestmark = needs_root

BRIDGE = (Attachment("bridge"),)


def test_a_container_is_connected_before_its_program_starts(host: Host, state_root: Path) -> None:
    engine = Engine(state_root)
    with host.entered():
        done = engine.run("busybox", ["ping", "-c", "1", "-W", "5", "172.17.0.1"], network="bridge", capture=True)
    assert (done.status, done.stderr) == (0, ""), done.stdout


def test_what_is_written_of_it_is_read_again(state_root: Path) -> None:
    wanted = Config("", "one", "busybox", ("true",), networks=(Attachment("web", "10.0.0.5", aliases=("db",)),),
                    ports=(Port(80, 8080),), dns=("10.0.0.1",), add_hosts=("a:10.0.0.1",))  # fmt: skip
    assert Config.from_json(wanted.to_json()) == wanted


def test_endpoints_say_where_it_is(host: Host, state_root: Path) -> None:
    engine = Engine(state_root)
    with host.entered(), engine.started("busybox", ["sleep", "600"], networks=BRIDGE, ports=(Port(80, 8080),)) as one:
        [endpoint] = engine.endpoints(engine.store.find(one.name))
        assert endpoint.addresses == ("172.17.0.2/16",) and endpoint.ports == (Port(80, 8080),)
        assert (
            host.shell(f"nsenter --net=/proc/{one.pid}/ns/net ip -o -4 address show eth0").split()[3] == "172.17.0.2/16"
        )
    assert engine.networks().records.living("bridge") == []


THREADED = """
import sys, threading
from minicontainer.engine.engine import Engine
from minicontainer.network.wishes import Attachment
threading.Thread(target=threading.Event().wait, daemon=True).start()
engine = Engine(sys.argv[1])
done = engine.run("busybox", ["ip", "-o", "-4", "address"], networks=(Attachment("bridge"),), capture=True)
print(done.status, done.stdout, done.stderr)
"""


def test_from_a_process_with_threads(host: Host, state_root: Path) -> None:
    assert "172.17.0.2/16" in host(sys.executable, "-c", THREADED, state_root)


NOTHING = """
import json, sys
from minicontainer.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if name.startswith("minicontainer"))]))
"""


def test_without_a_network_nothing_of_networks_is_imported(minicontainer: Command) -> None:
    words = ["--root", minicontainer.root, "run", "--rm", "--network", "none", "busybox", "true"]
    done = subprocess.run([sys.executable, "-c", NOTHING, *words], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout)
    assert code == 0
    assert not [name for name in modules if "minicontainer.network" in name or "netlink" in name or "nft" in name]
    assert not (minicontainer.root / "networks").exists()


@pytest.mark.parametrize("step", ["create_bridge", "masquerade", "connect", "publish"])
@pytest.mark.parametrize("detached", [False, True])
def test_a_step_that_fails_leaves_nothing_half_made(host: Host, state_root: Path, step: str, detached: bool) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "the kernel has no more of it")

    engine = Engine(state_root)
    engine._steps = engine._steps.replace(**{step: fail})
    run = engine.run_detached if detached else engine.run
    with host.entered(), pytest.raises(StartError, match="the kernel has no more of it"):
        run("busybox", ["true"], networks=BRIDGE, ports=(Port(80, 8080),))
    assert engine.containers() == []
    assert engine.networks().records.of_container("") == []
    with host.entered():
        engine.networks().prune()
        assert host.is_as_before()
        engine._steps = Steps()
        assert engine.run("busybox", ["true"], networks=BRIDGE, ports=(Port(80, 8080),)).status == 0


def test_what_was_written_before_a_reboot_is_made_again(host: Host, state_root: Path) -> None:
    """The state directory says that there is a bridge, and there is none: as after a power failure."""
    engine = Engine(state_root)
    with host.entered():
        engine.run("busybox", ["true"], networks=BRIDGE)
        network = engine.networks().find("bridge")
        host.shell(f"ip link delete {network.device}; nft delete table inet minicontainer;"
                   "echo 0 >/proc/sys/net/ipv4/ip_forward")  # fmt: skip
        done = engine.run("busybox", ["ping", "-c", "1", "-W", "5", "172.17.0.1"], networks=BRIDGE, capture=True)
        assert done.status == 0, done.stdout
        assert "masquerade" in host("nft", "list", "table", "inet", "minicontainer")


def test_the_host_is_clean_also_where_the_state_directory_is_removed_at_once(host: Host, state_root: Path) -> None:
    with host.entered():
        Engine(state_root).run("busybox", ["true"], networks=BRIDGE)
        assert "minicontainer0" in host("ip", "link")
        shutil.rmtree(state_root / "networks")
        wait_until(host.is_as_before, "whoever takes it down knows it all the same")
    assert not (state_root / "networks").exists()


def test_removal_does_not_wait_for_the_device(host: Host, state_root: Path) -> None:
    """No time is measured: of the calls for which the kernel waits, none is made by whoever ends a container."""
    engine = Engine(state_root)
    made: list[str] = []

    def noted(name: str):  # type: ignore[no-untyped-def]
        step = getattr(engine._steps, name)

        def note(*arguments: object, **options: object) -> object:
            made.append(name)
            return step(*arguments, **options)

        return note

    slow = ("disconnect", "remove_bridge", "withdraw", "unpublish")
    engine._steps = engine._steps.replace(**{name: noted(name) for name in slow})
    with host.entered():
        engine.run("busybox", ["true"], networks=BRIDGE, ports=(Port(80, 8080),))
        assert made == []
        wait_until(lambda: "minicontainer0" not in host("ip", "link"), "somebody else does it")
