"""The command line: options as docker's, where docker has them.

Only the options of the command that was asked for are set up: argparse takes longer over all of them than the kernel
takes over a container.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from minicontainer.cli import commands, limits, rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SHAREABLE = {"uts": "uts", "ipc": "ipc", "cgroupns": "cgroup", "timens": "time"}
"""Option → the namespace's name below /proc/PID/ns."""


class Parser(argparse.ArgumentParser):
    """Says in one line what was wrong, and ends with docker's exit code for it, 125."""

    _formatter: argparse.HelpFormatter | None = None

    def _get_formatter(self) -> argparse.HelpFormatter:
        # Asked for at every option, to see whether it could be shown: for that, one is enough. Without a width it
        # imports shutil, and with that three compressors, to learn it.
        if self._formatter is None:
            self._formatter = argparse.RawDescriptionHelpFormatter(self.prog, width=100)
        return self._formatter

    def format_help(self) -> str:
        """With a formatter that has nothing in it yet, and examples at its end."""
        from minicontainer.cli.examples import examples_of

        self._formatter = None
        return "\n".join(filter(None, (super().format_help(), examples_of(self.prog)))).rstrip() + "\n"

    def error(self, message: str) -> NoReturn:
        """End the process."""
        for word in message.partition("unrecognized arguments: ")[2].split():
            if word.startswith("--"):
                from minicontainer.runtime.errors import did_you_mean

                message += did_you_mean(word.partition("=")[0], self._option_string_actions)
                break
        self.exit(125, f"{self.prog}: {message}; see: {self.prog} --help\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The parsed command line; its attribute `act` is the function to call with it."""
    parser = main_parser()
    chosen = parser.parse_args(argv)
    if chosen.command is None:
        parser.print_help()
        parser.exit(125)
    if chosen.command not in COMMANDS:
        from minicontainer.runtime.errors import did_you_mean

        like = did_you_mean(chosen.command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        parser.error(f'there is no command "{chosen.command}"{like}')
    globally = argparse.Namespace(root=chosen.root, steps=chosen.steps)
    arguments = parser_of(chosen.command).parse_args(chosen.rest, globally)
    arguments.explain_to = arguments.explain_to or chosen.explain_to
    arguments.explain = arguments.explain or chosen.explain or bool(arguments.explain_to)
    return arguments


def main_parser() -> Parser:
    """Of what stands before the command, and its name."""
    parser = Parser(
        prog="minicontainer",
        description="Containers, step by step.",
        usage="minicontainer [--root DIR] [--steps FILE] [--explain] COMMAND …",
        epilog="commands:\n" + "".join(f"  {name:<10} {help}\n" for name, (help, _, _) in COMMANDS.items()),
    )
    parser.add_argument("--root", metavar="DIR", help="keep all state below DIR")
    parser.add_argument("--steps", metavar="FILE", help="use the exercises in this notebook, module or directory")
    add_explain(parser)
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def parser_of(name: str) -> Parser:
    """Of one command."""
    description, options, act = COMMANDS[name]
    # -h is --hostname, as with docker, so only --help helps.
    parser = Parser(prog=f"minicontainer {name}", description=f"{description}.", add_help=False)
    parser.add_argument("--help", action="help", help="show this and stop")
    options(parser)
    add_explain(parser)
    parser.set_defaults(act=act)
    return parser


def add_explain(parser: Parser) -> None:
    """Before the command or after it."""
    parser.add_argument("--explain", action="store_true", help="show every system call, with its page in the manual")
    parser.add_argument("--explain-to", metavar="FILE", help="likewise, in a file")


def _run(parser: Parser) -> None:
    parser.add_argument("--rm", action="store_true", help="remove the container when it has ended")
    parser.add_argument("-d", "--detach", action="store_true", help="let it run by itself, and print its id")
    _detach_keys(parser)
    _container(parser)


def _container(parser: Parser) -> None:
    _interactive(parser)
    add = parser.add_argument
    add("--name", help="a name for the container")
    add("-h", "--hostname", default="", help="its host name (its id unless given)")
    add("--domainname", help="its NIS domain name")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable")
    add("--env-file", action="append", default=[], metavar="FILE", help="likewise, each of its lines NAME=VALUE")
    add("-w", "--workdir", default="", metavar="DIR", help="start in this directory of the container")
    add("--entrypoint", metavar="PROGRAM", help="run this, with COMMAND … as its arguments (what the image says)")
    add("-l", "--label", action="append", default=[], metavar="NAME=VALUE", help="note something with the container")
    add("--label-file", action="append", default=[], metavar="FILE", help="likewise, each line of a file")
    log = "max-size=10m: keep that much of its log when it runs by itself; max-file=3: three times that"
    add("--log-opt", action="append", default=[], metavar="NAME=VALUE", help=log)
    add("--platform", default="", metavar="OS/ARCH", help="of an image for several machines, the one for this (ours)")
    pull = "ask the registry for the image always, if it is missing here, or never (missing)"
    add("--pull", choices=("always", "missing", "never"), default="missing", help=pull)
    add("-v", "--volume", action="append", default=[], metavar="SOURCE:DIR[:ro]",
        help="show a directory of the host, or a volume by its name")  # fmt: skip
    add(
        "--mount",
        action="append",
        default=[],
        metavar="type=…,…",
        help="likewise: source=data,target=/data,ro",
    )
    add("--tmpfs", action="append", default=[], metavar="DIR[:size=…]", help="a file system in memory")
    add("--views", action="store_true", help="its own limits in /proc/meminfo, cpuinfo, uptime…, by the host's lxcfs")
    add("--rootfs", action="store_true", help="IMAGE is a directory with a root file system; it is not written to")
    _network_options(parser)
    for option, name in SHAREABLE.items():
        choices = ("host", "private") if option == "cgroupns" else ("host",)
        add(f"--{option}", choices=choices, help=f"share the host's {name} namespace")
    limits.add_options(parser, creating=True)
    rights.add_options(parser)
    policy = "when it has ended: no, on-failure[:N] (N times at most), always, unless-stopped (no)"
    add("--restart", default="", metavar="POLICY", help=policy)
    _health_options(parser)
    for clock in ("monotonic", "boottime"):
        help = f"its CLOCK_{clock.upper()} is S seconds ahead of the host's"
        add(f"--{clock}", type=int, default=0, metavar="S", help=help)
    add("--no-init", action="store_true", help="the command itself is process 1; nothing reaps orphans")
    systemd = "what systemd wants as process 1: if the command is an init (true), never, always"
    add("--systemd", choices=("true", "false", "always"), default="true", help=systemd)
    add("image", metavar="IMAGE", help="an image, such as busybox, or with --rootfs a directory")
    add("args", nargs=argparse.REMAINDER, metavar="COMMAND …", help="what to run in it")


def _health_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--health-cmd", metavar="COMMAND", help="see with this, in its shell, whether it is well (what the image says)")
    add("--health-interval", metavar="TIME", help="how often, such as 10s or 1m30s; disable: only when asked for (30s)")
    add("--health-timeout", metavar="TIME", help="how long it may take (30s)")
    add("--health-retries", metavar="N", help="how many failures in a row make it unhealthy (3)")
    add("--health-start-period", metavar="TIME", help="in which failures do not count (0s)")
    add("--health-on-failure", metavar="ACTION", help="what to do then: none, restart, stop, kill (none)")
    add("--no-healthcheck", action="store_true", help="also not as the image says")


def _healthcheck(parser: Parser) -> None:
    parser.epilog = "run: check now; 0 when it is well, 1 when it is not"
    parser.add_argument("what", choices=("run",), metavar="run", help="the only one")
    _one(parser)


def _network_options(parser: Parser) -> None:
    add = parser.add_argument
    names = "NAME, or NAME,ip=…,alias=…; none, host, pasta, slirp4netns, container:NAME"
    add("--network", action="append", default=[], metavar="NETWORK", help=names)
    ports = "let a port of the host, on 127.0.0.1 unless told otherwise, lead to one of the container"
    add("-p", "--publish", action="append", default=[], metavar="[ADDR:][PORT:]PORT[/udp]", help=ports)
    add("--ip", metavar="ADDRESS", help="its IPv4 address on its network")
    add("--ip6", metavar="ADDRESS", help="its IPv6 address")
    add("--mac-address", metavar="MAC", help="its MAC address")
    add("--network-alias", action="append", default=[], metavar="NAME", help="another name that it is known by there")
    add("--dns", action="append", default=[], metavar="ADDRESS", help="ask this server for names")
    add("--dns-search", action="append", default=[], metavar="DOMAIN", help="look for names in this domain too")
    add("--dns-option", action="append", default=[], metavar="OPTION", help="an option of resolv.conf(5)")
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="a line of its /etc/hosts")


def _network(parser: Parser) -> None:
    parser.epilog = "minicontainer network WHAT --help says more"
    what = ("create", "ls", "inspect", "rm", "prune", "connect", "disconnect", "graph")
    parser.add_argument("what", choices=what, metavar="WHAT", help=", ".join(what))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _volume(parser: Parser) -> None:
    parser.epilog = "minicontainer volume WHAT --help says more"
    what = ("create", "ls", "inspect", "rm", "prune")
    parser.add_argument("what", choices=what, metavar="WHAT", help=", ".join(what))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _start(parser: Parser) -> None:
    parser.add_argument("-a", "--attach", action="store_true", help="stay with it: its output, its exit status")
    _interactive(parser)
    _detach_keys(parser)
    _several(parser)


def _interactive(parser: Parser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="pass standard input on")


def _one(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name, or the beginning of its id")


def _remove(parser: Parser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="kill those that run")
    parser.add_argument("-s", "--snapshots", action="store_true", help="their snapshots go as well")
    parser.add_argument("-v", "--volumes", action="store_true", help="and their volumes that nobody has named")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="name, or the beginning of the id")


def _snapshot(parser: Parser) -> None:
    parser.usage = "minicontainer snapshot [-c COMMENT] [take] CONTAINER [NAME] | list CONTAINER | …"
    parser.epilog = (
        "[take] CONTAINER [NAME]               keep what its files are now (as snap0, snap1…), also while it runs\n"
        "list CONTAINER                        the snapshots that there are\n"
        "restore CONTAINER SNAPSHOT            put its files back; it must not run\n"
        "restore CONTAINER SNAPSHOT NEWNAME    make another container of the snapshot\n"
        "rm CONTAINER SNAPSHOT…                forget snapshots; ALL: all of them\n"
        "A container that is called list, restore, rm or take: snapshot take list"
    )
    parser.add_argument("-c", "--comment", metavar="TEXT", help="take: what to remember it by")
    _formats(parser)
    parser.add_argument("words", nargs="+", metavar="WORD", help="see below")


def _clone(parser: Parser) -> None:
    add = parser.add_argument
    add("--full", action="store_true", help="copy what the source has written, in place of sharing it")
    add("-e", "--ephemeral", action="store_true", help="start it at once; it is gone with its files when it ends")
    add("--snapshot", metavar="SNAPSHOT", help="as the source was then")
    add("source", metavar="CONTAINER", help="name, or the beginning of the id")
    add("name", nargs="?", metavar="NEWNAME", help="of the clone")


def _update(parser: Parser) -> None:
    limits.add_options(parser, creating=False)
    parser.add_argument(
        "--memory-share", metavar="N:N…", help="split --memory: each container gets a maximum in this proportion"
    )
    add = parser.add_argument
    add("--publish", action="append", default=[], metavar="[ADDR:][PORT:]PORT[/udp]", help="publish one more port")
    add("--mount", action="append", default=[], metavar="type=…,…", help="mount something more, as run --mount does")
    add("--unmount", action="append", default=[], metavar="PLACE", help="take away what is mounted there")
    add("--restart", metavar="POLICY", help="when it has ended: no, on-failure[:N], always, unless-stopped")
    add("--unpublish", action="append", default=[], metavar="[[ADDR:]PORT:]PORT[/udp]", help="publish it no longer")
    add("containers", nargs="+", metavar="CONTAINER", help="name, or the beginning of the id")


def _stats(parser: Parser) -> None:
    parser.add_argument("--no-stream", action="store_true", help="one look, and not one every second")
    _formats(parser)
    parser.add_argument("containers", nargs="*", metavar="CONTAINER", help="those only (all that run, unless given)")


def _formats(parser: Parser) -> None:
    from minicontainer.cli import formats

    formats.add_options(parser)


def _several(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER", help="name, or the beginning of the id")


def _exec(parser: Parser) -> None:
    _interactive(parser)
    add = parser.add_argument
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-d", "--detach", action="store_true", help="let it run by itself")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable")
    add("--env-file", action="append", default=[], metavar="FILE", help="likewise, each of its lines NAME=VALUE")
    add("-u", "--user", metavar="USER[:GROUP]", help="who the command is (as the container's own)")
    add("-w", "--workdir", metavar="DIR", help="start in this directory (as the container's own)")
    namespaces = "join these of its namespaces only, such as pid,net: in all others it is the host's"
    add("-s", "--namespaces", metavar="NAME,…", help=namespaces)
    _one(parser)
    add("args", nargs=argparse.REMAINDER, metavar="COMMAND …", help="what to run in it")


def _debug(parser: Parser) -> None:
    _interactive(parser)
    add = parser.add_argument
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable")
    add("--env-file", action="append", default=[], metavar="FILE", help="likewise, each of its lines NAME=VALUE")
    add("--image", default="busybox", metavar="IMAGE", help="where the tools are (busybox)")
    _one(parser)
    add("args", nargs=argparse.REMAINDER, metavar="COMMAND …", help="what to run (sh)")


def _attach(parser: Parser) -> None:
    parser.add_argument("--no-stdin", action="store_true", help="pass nothing on that is typed")
    _detach_keys(parser)
    _one(parser)


def _detach_keys(parser: Parser) -> None:
    keys = "leave it with these, such as ctrl-a,d; '': with none ($MINICONTAINER_DETACH_KEYS, ctrl-p,ctrl-q)"
    parser.add_argument("--detach-keys", metavar="KEYS", help=keys)


def _console(parser: Parser) -> None:
    add = parser.add_argument
    add("-t", "--tty", type=limits.whole, default=0, metavar="N", help="which terminal: 0 is its console (0)")
    keys = "leave it with these ($MINICONTAINER_DETACH_KEYS, ctrl-a,q)"
    add("-e", "--escape", "--detach-keys", dest="escape", metavar="KEYS", help=keys)
    _one(parser)


def _logs(parser: Parser) -> None:
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on until it ends")
    add("-n", "--tail", default="all", metavar="N", help="the last N lines only")
    add("-t", "--timestamps", action="store_true", help="and when each was written")
    add("--since", metavar="WHEN", help="what was written from then on: 10m (ago), 2026-11-26T10:00:00Z, Unix seconds")
    add("--until", metavar="WHEN", help="up to then")
    _one(parser)


def _stop(parser: Parser) -> None:
    parser.add_argument("-t", "--time", type=limits.decimal, default=10, metavar="S", help="seconds until it is killed")
    _several(parser)


def _kill(parser: Parser) -> None:
    parser.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="which, such as TERM, or 15 (KILL)")
    _several(parser)


def _cgroup(parser: Parser) -> None:
    from minicontainer.steps.events import EVENTS

    parser.epilog = "tree: every control group of ours, its limits, its use\ncount: an event in one container's group"
    parser.add_argument("what", choices=("tree", "count"), help="see below")
    parser.add_argument("container", nargs="?", metavar="CONTAINER", help="count: the container")
    parser.add_argument("--event", choices=tuple(EVENTS), default="cpu-clock", help="count: what (cpu-clock, in ns)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="N", help="count: for so long (1)")
    parser.add_argument("--json", action="store_true", help="for programs")


def _check(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _of_images(name: str, module: str = "images") -> Callable[[Parser], None]:
    """Options that are set up where their command is."""

    def options(parser: Parser) -> None:
        found = __import__(f"minicontainer.cli.{module}", fromlist=[name])
        getattr(found, name)(parser)

    return options


def _of_making(name: str) -> Callable[[Parser], None]:
    return _of_images(name, "making")


def _later(name: str, module: str = "detached") -> Callable[[argparse.Namespace], int]:
    """A command that is imported when it is called: most starts of ours are of another."""

    def act(arguments: argparse.Namespace) -> int:
        found = __import__(f"minicontainer.cli.{module}", fromlist=[name])
        command: Callable[[argparse.Namespace], int] = getattr(found, name)
        return command(arguments)

    return act


def _options_of(name: str) -> Callable[[Parser], None]:
    """The options of a command that speaks to registries, kept where that is."""

    def set_up(parser: Parser) -> None:
        from minicontainer.cli import registry

        getattr(registry, f"{name}_options")(parser)

    return set_up


COMMANDS: dict[str, tuple[str, Callable[[Parser], None], Callable[[argparse.Namespace], int]]] = {
    "run": ("create a container and start it", _run, commands.run),
    "create": ("create a container, to be started later", _container, commands.create),
    "start": ("start created or ended containers; -a: stay with one", _start, commands.start),
    "exec": ("run another command in a container", _exec, _later("execute")),
    "debug": ("run a tool of another image among a container's processes", _debug, _later("debug")),
    "attach": ("stay with a container that runs by itself; leave it with ^P ^Q", _attach, _later("attach")),
    "console": ("stay at the terminal of a container; leave it with ^A q", _console, _later("console")),
    "logs": ("what a container has written that runs by itself", _logs, _later("logs")),
    "stop": ("ask containers to end, and kill those that do not", _stop, _later("stop")),
    "restart": ("stop containers, if they run, and start them again", _stop, _later("restart")),
    "kill": ("send containers a signal", _kill, _later("kill")),
    "wait": ("wait until containers have ended and print their exit status", _several, commands.wait),
    "ps": ("list containers", _of_images("ps_options", "looking"), _later("ps", "looking")),
    "inspect": (
        "all that is known of containers, images, networks",
        _of_images("inspect_options", "looking"),
        _later("inspect", "looking"),
    ),
    "info": (
        "of a container: state, pid, addresses, use; of the engine",
        _of_images("info_options", "watching"),
        _later("info", "watching"),
    ),
    "top": (
        "the processes of a container; all containers, live",
        _of_images("top_options", "watching"),
        _later("top", "watching"),
    ),
    "events": (
        "what happens to containers, as it happens",
        _of_images("events_options", "events"),
        _later("events", "events"),
    ),
    "monitor": (
        "the states of containers, as they change",
        _of_images("monitor_options", "events"),
        _later("monitor", "events"),
    ),
    "healthcheck": ("see whether a container is well, by its own check", _healthcheck, _later("healthcheck", "health")),
    "rename": ("give a container another name", _of_images("rename_options", "upkeep"), _later("rename", "upkeep")),
    "container": (
        "container prune: remove all that do not run",
        _of_images("container_options", "upkeep"),
        _later("container", "upkeep"),
    ),
    "rm": ("remove containers", _remove, commands.remove),
    "destroy": ("another word for rm, LXC's", _remove, commands.remove),
    "completion": (
        "write the completion of command lines for a shell",
        _of_images("completion_options", "manuals"),
        _later("completion", "manuals"),
    ),
    "man": ("write the manual's pages", _of_images("man_options", "manuals"), _later("man", "manuals")),
    "snapshot": (
        "keep what a container's files are now; list, restore, remove what was kept",
        _snapshot,
        _later("snapshot", "snapshots"),
    ),
    "clone": ("another container that begins as what one is now", _clone, _later("clone", "snapshots")),
    "update": ("change limits, ports and mounts of containers, while they run", _update, commands.update),
    "stats": ("what containers use of the host's resources", _stats, commands.stats),
    "pause": ("stop every process of containers where it is", _several, commands.pause),
    "unpause": ("let paused containers go on", _several, commands.unpause),
    "freeze": ("another word for pause, LXC's", _several, commands.pause),
    "unfreeze": ("another word for unpause", _several, commands.unpause),
    "cgroup": ("control groups: their tree; events counted in one", _cgroup, commands.cgroup),
    "network": ("networks: make, list, remove them; connect containers", _network, _later("network", "networks")),
    "volume": ("volumes: make, list, remove them", _volume, _later("volume", "volumes")),
    "port": ("the published ports of a container", _one, _later("port", "networks")),
    "pull": ("fetch images from a registry", _options_of("pull"), _later("pull", "registry")),
    "push": ("bring an image to a registry", _options_of("push"), _later("push", "registry")),
    "login": ("keep the password for a registry", _options_of("login"), _later("login", "registry")),
    "logout": ("forget it", _options_of("logout"), _later("logout", "registry")),
    "search": ("the repositories of a registry, or tags", _options_of("search"), _later("search", "registry")),
    "check": ("what this machine can do, and how to mend what it cannot", _check, commands.check),
    "images": ("list images", _of_images("list_options"), _later("list_images", "images")),
    "history": ("how an image came to be", _of_images("history_options"), _later("history", "images")),
    "tag": ("give an image one more name", _of_images("tag_options"), _later("tag", "images")),
    "rmi": ("remove images", _of_images("remove_options"), _later("remove", "images")),
    "save": ("write images to an archive", _of_images("save_options"), _later("save", "images")),
    "load": ("read images from an archive", _of_images("load_options"), _later("load", "images")),
    "commit": ("make an image of what a container is", _of_making("commit_options"), _later("commit", "making")),
    "diff": ("what a container has changed of its image", _of_making("diff_options"), _later("diff", "making")),
    "cp": ("copy files into a container and out of it", _of_making("cp_options"), _later("cp", "making")),
    "export": ("all files of a container, as an archive", _of_making("export_options"), _later("export", "making")),
    "import": ("make an image of an archive", _of_making("import_options"), _later("import_archive", "making")),
    "image": ("all about images: image WHAT --help", _of_images("image_options"), _later("image", "images")),
    "system": ("look after the engine itself", _of_images("system_options"), _later("system", "images")),
}
"""Command → what it does, what sets up its options, what carries it out."""
