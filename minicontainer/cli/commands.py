"""Each command of the command line: from its options to a call of the engine, and what is printed."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Callable, Mapping

from minicontainer.cli import HANDLED
from minicontainer.cli.limits import devices_of, limits_of, size
from minicontainer.cli.rights import ids_of, rights_of
from minicontainer.engine.engine import Engine, Result
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config
from minicontainer.linux import signal, signalfd
from minicontainer.runtime.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.engine.resources import Statistics
    from minicontainer.steps.usage import Usage


def run(arguments: argparse.Namespace) -> int:
    """``minicontainer run``: create, start, stay, and (--rm) remove; -d: do not stay, and print the id."""
    interrupts = _held_signals()
    engine = _engine(arguments)
    if arguments.detach:
        config = engine.run_detached(arguments.image, arguments.args, remove=arguments.rm, **_options(arguments))
        print(config.id)
        return 0
    stdin = 0 if arguments.interactive else None
    _require_terminal(arguments)
    if stdin is not None and arguments.tty:
        leave = _keys(arguments.detach_keys)
        options = {"remove": arguments.rm, **_options(arguments)}
        return _ended(engine.run_attached(arguments.image, arguments.args, interrupts, leave, **options))
    result = engine.run(
        arguments.image,
        arguments.args,
        stdio=(stdin, 1, 2),
        interrupts=interrupts,
        remove=arguments.rm,
        **_options(arguments),
    )
    return _ended(result)


def create(arguments: argparse.Namespace) -> int:
    """``minicontainer create``: prints the id."""
    _let_interrupt()
    print(_engine(arguments).create(arguments.image, arguments.args, **_options(arguments)).id)
    return 0


def start(arguments: argparse.Namespace) -> int:
    """``minicontainer start``: prints what was started; -a stays with the one, and its exit status is ours."""
    if not (arguments.attach or arguments.interactive):
        if len(arguments.containers) > 1:
            return _each(arguments, _engine(arguments).start_detached)
        _let_interrupt()
        engine = _engine(arguments)
        engine.start_detached(engine.store.find(arguments.containers[0]))
        print(arguments.containers[0])
        return 0
    interrupts = _held_signals()
    engine = _engine(arguments)
    if len(arguments.containers) != 1:
        raise EngineError("start -a stays with one container: name just one")
    config = engine.store.find(arguments.containers[0])
    if arguments.interactive and config.terminal and os.isatty(0):
        return _ended(engine.start_attached(config, interrupts, _keys(arguments.detach_keys)))
    stdio = (0 if arguments.interactive else None, 1, 2)
    running = engine.start(config, stdio, interrupts)
    return _ended(engine.stay(config, running, stdio, interrupts))


def wait(arguments: argparse.Namespace) -> int:
    """``minicontainer wait``: prints the exit status of each."""
    _let_interrupt()
    engine = _engine(arguments)
    for config in [engine.store.find(name) for name in arguments.containers]:
        print(engine.wait(config), flush=True)
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """``minicontainer rm``: prints what was removed; goes on after one that could not be."""
    engine, code = _engine(arguments), 0
    for name in arguments.containers:
        try:
            engine.remove(engine.store.find(name), force=arguments.force, snapshots=arguments.snapshots,
                          volumes=arguments.volumes)  # fmt: skip
            print(name)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code


def update(arguments: argparse.Namespace) -> int:
    """``minicontainer update``: other limits, at once; prints what was changed."""
    _let_interrupt()
    engine = _engine(arguments)
    configs = [engine.store.find(name) for name in arguments.containers]
    changes = [limits_of(arguments)] * len(configs)
    if arguments.restart is not None:
        configs = [engine.change_restart(config, arguments.restart) for config in configs]
        others = (arguments.publish, arguments.unpublish, arguments.mount, arguments.unmount, arguments.memory_share)
        if changes[0] == Limits() and not any(others):
            print("\n".join(arguments.containers))
            return 0
    if arguments.publish or arguments.unpublish:
        from minicontainer.cli.networks import republish

        republish(engine, arguments.containers, arguments.publish, arguments.unpublish)
        if changes[0] == Limits() and not (arguments.memory_share or arguments.mount or arguments.unmount):
            print("\n".join(arguments.containers))
            return 0
        configs = [engine.store.find(name) for name in arguments.containers]
    if arguments.mount or arguments.unmount:
        from minicontainer.cli.volumes import change_mounts

        change_mounts(engine, configs, arguments.mount, arguments.unmount)
        if changes[0] == Limits() and not arguments.memory_share:
            print("\n".join(arguments.containers))
            return 0
        configs = [engine.store.find(name) for name in arguments.containers]
    if changes[0] == Limits():
        raise EngineError("update: say which limit to change, such as: minicontainer update --memory 128m c1")
    if arguments.memory_share:
        from minicontainer.engine.resources import split

        if arguments.memory is None:
            raise EngineError("--memory-share splits a pool: say with --memory how much there is")
        parts = split(size(arguments.memory), arguments.memory_share, len(configs))
        changes = [change.replace(memory=part) for change, part in zip(changes, parts, strict=True)]
        print("The kernel has no shares of memory: each container gets a maximum of its own, and lends nothing.")
    for config, change in zip(configs, changes, strict=True):
        engine.update(config, change)
        print(f"{config.name}  {_bytes(change.memory)}" if arguments.memory_share else config.name)
    return 0


def pause(arguments: argparse.Namespace) -> int:
    """``minicontainer pause``: prints what was paused; goes on after one that could not be."""
    return _each(arguments, _engine(arguments).pause)


def unpause(arguments: argparse.Namespace) -> int:
    """``minicontainer unpause``."""
    return _each(arguments, _engine(arguments).unpause)


STATISTICS = {
    "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEMORY / LIMIT", "MemPerc": "MEMORY %", "PIDs": "PIDS",
    "BlockIO": "READ / WRITTEN", "NetIO": "RECEIVED / SENT", "Pressure": "PRESSURE", "Paused": "",
}  # fmt: skip
"""Field, docker's, → heading."""


def stats(arguments: argparse.Namespace) -> int:
    """``minicontainer stats``: a table and, on a terminal, again every second."""
    _let_interrupt()
    from minicontainer.cli.formats import show_list

    engine = _engine(arguments)
    configs = [engine.store.find(name) for name in arguments.containers] or None
    once = arguments.no_stream or arguments.json or not os.isatty(1)
    before, begun = None, time.monotonic()
    while True:
        found = engine.statistics(configs, before, (now := time.monotonic()) - begun)
        before, begun = {one.id: one for one in found}, now
        if not once:
            print("\x1b[H\x1b[2J", end="")  # ECMA-48: the cursor home, the screen empty
        rows = [dict(zip(STATISTICS, _row(one), strict=True)) | {"ID": one.id} for one in found]
        show_list(arguments, STATISTICS, rows, data=lambda: [one.asdict() for one in found])  # noqa: B023
        if once:
            return 0
        select.select([], [], [], 1)


def cgroup(arguments: argparse.Namespace) -> int:
    """``minicontainer cgroup tree`` and ``cgroup count``."""
    _let_interrupt()
    engine = _engine(arguments)
    if arguments.what == "count":
        if arguments.container is None:
            raise EngineError("cgroup count: say in which container, such as: minicontainer cgroup count c1")
        config = engine.store.find(arguments.container)
        print(engine.count(config, arguments.event, arguments.seconds))
        return 0
    nodes = engine.groups()
    if arguments.json:
        import json

        print(json.dumps([node.asdict() for node in nodes], indent=2))
        return 0
    for node in nodes:
        indent = "  " * (node.name.count("/") + 1) if node.name else ""
        name = node.name.rpartition("/")[2] or "minicontainer"
        of = f" ({_printable(node.container)})" if node.container else ""
        print(f"{indent}{_printable(name)}{of}: {_in_use(node.usage)}")
        for file, value in node.limits.items():
            print(f"{indent}    {file} = {value}")
    if not nodes:
        print("there is no control group of ours: nothing runs")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """``minicontainer check``: 0 when everything that is needed is there."""
    _let_interrupt()
    from minicontainer.engine.host import examine, report

    findings = examine(arguments.root)
    print(report(findings, as_json=arguments.json))
    return 0 if all(finding.works for finding in findings if finding.required) else 1


def _engine(arguments: argparse.Namespace) -> Engine:
    engine = Engine(arguments.root, arguments.steps, explain=arguments.explain or None)
    engine.warn = _warn
    return engine


def _warn(line: str) -> None:
    print(f"minicontainer: warning: {line}", file=sys.stderr)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of the engine's Config that the command line speaks of."""
    from minicontainer.cli.arguments import SHAREABLE

    shared = [name for option, name in SHAREABLE.items() if getattr(arguments, option) == "host"]
    networks = arguments.network or [_default_network()]
    if "host" in networks:
        shared.append("net")
    environment = ["TERM=xterm"] if arguments.tty else []
    return {
        "name": arguments.name,
        "hostname": arguments.hostname,
        "domainname": arguments.domainname,
        "terminal": arguments.tty,
        "interactive": arguments.interactive,
        "env": (*environment, *_environment(arguments)),
        "cwd": arguments.workdir,
        "rootfs": arguments.rootfs,
        "entrypoint": arguments.entrypoint,
        "platform": arguments.platform,
        "pull": arguments.pull,
        "user": arguments.user or "",
        "labels": _labels(arguments),
        "log_pieces": _log_pieces(arguments.log_opt) if arguments.log_opt else (0, 1),
        "shared": tuple(shared),
        **_mount_wishes(arguments),
        "devices": tuple((source, destination) for source, destination, _ in devices_of(arguments)),
        "limits": limits_of(arguments),
        "rights": rights_of(arguments),
        **ids_of(arguments),
        "clock_offsets": (arguments.monotonic, arguments.boottime),
        "restart": arguments.restart,
        **_health_wishes(arguments),
        "cgroup_parent": arguments.cgroup_parent.strip("/"),
        "reaper": not arguments.no_init,
        "systemd": arguments.systemd,
        **_network_wishes(arguments, networks),
    }


def _default_network() -> str:
    """What a container is connected to unless the command line says."""
    if (said := os.environ.get("MINICONTAINER_NETWORK")) or os.geteuid() == 0:
        return said or "bridge"
    from minicontainer.network.userspace import usable

    return usable() or "none"


def _network_wishes(arguments: argparse.Namespace, networks: list[str]) -> dict[str, Any]:
    """What is said of networks; where nothing is, nothing of them is imported."""
    said = (arguments.publish, arguments.ip, arguments.ip6, arguments.mac_address, arguments.network_alias)
    names = (arguments.dns, arguments.dns_search, arguments.dns_option, arguments.add_host)
    if networks in (["none"], ["host"]) and not any((*said, *names)):
        return {}
    from minicontainer.cli.networks import wishes_of

    return wishes_of(arguments, networks)


def _health_wishes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is said of health checks; where nothing is, nothing of them is imported."""
    said = [value for name, value in vars(arguments).items() if name.startswith("health_")]
    if not arguments.no_healthcheck and all(value is None for value in said):
        return {}
    from minicontainer.cli.health import check_of

    return {"health": check_of(arguments)}


def _environment(arguments: argparse.Namespace) -> tuple[str, ...]:
    given = [item if "=" in item else f"{item}={os.environ.get(item, '')}" for item in arguments.env]
    if arguments.env_file:  # what is said on the command line counts more
        from minicontainer.cli.lines import environment_of

        given = [*environment_of(arguments.env_file), *given]
    return tuple(given)


def _labels(arguments: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    given = arguments.label
    if arguments.label_file:
        from minicontainer.cli.lines import labels_of

        given = [*labels_of(arguments.label_file), *given]
    return tuple({name: value for name, _, value in (text.partition("=") for text in given)}.items())


def _log_pieces(options: list[str]) -> tuple[int, int]:
    """``max-size=10m``, ``max-file=3``, as docker has them."""
    given = dict[str, str]()
    for text in options:
        name, _, given_value = text.partition("=")
        if name not in ("max-size", "max-file") or not given_value:
            raise EngineError(f'--log-opt "{text}": write max-size=SIZE or max-file=NUMBER')
        given[name] = given_value
    count = given.get("max-file", "1")
    if not (count.isascii() and count.isdecimal() and int(count)):
        raise EngineError(f"--log-opt max-file={count}: write how many pieces are kept, at least 1")
    if "max-size" not in given:
        raise EngineError("--log-opt max-file: say as well how big each is, such as: --log-opt max-size=10m")
    if (most := size(given["max-size"])) < 1:
        raise EngineError(f"--log-opt max-size={given['max-size']}: write a size of at least 1, such as 10m")
    return most, int(count)


def _ended(result: Result | None) -> int:
    """Its exit status; 0: it has been left, and runs on."""
    if result is None:
        return 0
    if result.oom_killed:
        print("minicontainer: the container reached its limit of memory, and the kernel killed (OOM)", file=sys.stderr)
    return result.status


def _dispatch(
    arguments: argparse.Namespace,
    of: str,
    commands: Mapping[str, tuple[str, Callable[[Any], None], Callable[[argparse.Namespace], int]]],
) -> int:
    """Carry out a command of two words, ``image ls``: `commands` has what the second does, its options, and its act."""
    from minicontainer.cli.arguments import Parser, add_explain

    description, options, act = commands[arguments.what]
    parser = Parser(prog=f"minicontainer {of} {arguments.what}", description=f"{description}.")
    options(parser)
    add_explain(parser)
    own = argparse.Namespace(root=arguments.root, steps=arguments.steps, act=act)
    chosen = parser.parse_args(arguments.rest, own)
    if (chosen.explain or chosen.explain_to) and not arguments.explain:
        from minicontainer.cli.explain import explained

        return explained(chosen)
    chosen.explain = arguments.explain
    return act(chosen)


def _each(arguments: argparse.Namespace, act: Callable[[Config], object]) -> int:
    """Do it to every container that is named, and go on after one to which it could not be done."""
    _let_interrupt()
    engine, code = _engine(arguments), 0
    for name in arguments.containers:
        try:
            act(engine.store.find(name))
            print(name)
        except EngineError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code


def _row(one: Statistics) -> tuple[str, ...]:
    use = one.usage
    limit = "no limit" if use.memory_limit is None else _bytes(use.memory_limit)
    return (
        one.name,
        "-" if one.cpu_percent is None else f"{one.cpu_percent:.1f}",
        f"{_bytes(use.memory)} / {limit}",
        "-" if one.memory_percent is None else f"{one.memory_percent:.1f}",
        f"{'-' if use.pids is None else use.pids}{f' / {use.pids_limit}' if use.pids_limit else ''}",
        f"{_bytes(use.read)} / {_bytes(use.written)}",
        f"{_bytes(one.received)} / {_bytes(one.sent)}",
        " ".join(f"{name} {share:.0f}%" for name, share in use.pressure.items() if share >= 0.5) or "-",
        "paused" if one.frozen else "",
    )


def _in_use(use: Usage) -> str:
    seconds = "-" if use.cpu is None else f"{use.cpu / 1e6:.2f} s"
    return f"memory {_bytes(use.memory)}, cpu {seconds}, pids {'-' if use.pids is None else use.pids}"


def _bytes(number: int | None) -> str:
    if number is None:
        return "-"
    amount, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.4g} {unit}"


def _mount_wishes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to be mounted; where that is plain directories of the host, nothing more is imported."""
    plain = [_volume(text) for text in arguments.volume]
    if None in plain or arguments.mount or arguments.tmpfs or arguments.views:
        from minicontainer.cli.volumes import wishes_of

        rest = [text for text, one in zip(arguments.volume, plain, strict=True) if one is None]
        wishes = wishes_of(rest, arguments.mount, arguments.tmpfs, views=arguments.views)
        return {"volumes": tuple(one for one in plain if one), "mounts": wishes}
    return {"volumes": tuple(plain)}


def _volume(text: str) -> tuple[str, str, bool] | None:
    """``DIR:PLACE[:ro]``; None: it is something else."""
    source, _, rest = text.partition(":")
    destination, _, mode = rest.partition(":")
    is_path = "/" in source or source in (".", "..")
    if not is_path or not destination.startswith("/") or mode not in ("", "ro", "rw"):
        return None
    return os.path.abspath(source), destination, mode == "ro"


def _held_signals() -> int:
    """Where the signals that would end us can be read. They are held back from the first line of main(), so that ^C
    cannot hit between two steps of a clean-up: it waits until somebody looks."""
    return signalfd(HANDLED)


def _let_interrupt() -> None:
    """Let ^C end this command wherever it is: nothing of it is left behind."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _printable(text: str) -> str:
    """One line, and nothing that a terminal would take for an order."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _keys(said: str | None, usual: str = "ctrl-p,ctrl-q") -> bytes:
    """Those that leave a container: as the command line says, the environment, or as usual."""
    from minicontainer.runtime.keys import read_keys

    try:
        return read_keys(os.environ.get("MINICONTAINER_DETACH_KEYS", usual) if said is None else said)
    except ValueError as error:
        raise EngineError(str(error)) from None


def _require_terminal(arguments: argparse.Namespace) -> None:
    if arguments.tty and arguments.interactive and not os.isatty(0):
        raise EngineError("-it needs a terminal, and standard input is none; leave out -t")
