"""The ``minicontainer-runtime`` command: an OCI runtime, with the command line that runc has and others have learnt.

podman, docker (through containerd) and the conformance suites drive it. It parses, calls `runtime.containers`, prints;
it decides nothing. getopt(3)'s sister reads the options and not argparse, which takes as long as the container.
"""

from __future__ import annotations

import getopt
import json
import os
import sys
from collections.abc import Callable, Sequence

from minicontainer.linux import signal
from minicontainer.runtime.containers import Containers, default_root
from minicontainer.runtime.errors import BundleError, Interrupted, Refusal, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "minicontainer-runtime"
VERSION = "1.2.0"
"""Of the runtime specification."""

Options = dict[str, list[str]]
"""Option without its dashes → its values, in the order in which they were given; [""] for one without a value."""

GLOBAL = "root= log= log-format= log-level= debug cgroup-manager= systemd-cgroup rootless= criu= v:version h:help"
"""Options, as in ``p:pid-file=``: a letter, if it has one, the long form, and "=" where it wants a value."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. What went wrong is one line, on standard error and in the log."""
    argv = sys.argv[1:] if argv is None else argv
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    said: Options = {}
    try:
        said, rest = _read(argv, GLOBAL)
        if "version" in said:
            print(f"{NAME} version {_own_version()}\nspec: {VERSION}")
            return 0
        if not rest or "help" in said or rest[0] == "help":
            print(_help())
            return 0 if rest or "help" in said else 1
        name, *rest = rest
        if name not in COMMANDS and rest[:1] in (["-h"], ["--help"]):
            raise getopt.GetoptError(f"No help topic for '{name}': it is no command")
        if name not in COMMANDS:
            raise getopt.GetoptError(f'there is no command "{name}"; there are {", ".join(COMMANDS)}')
        options, usage, _, act = COMMANDS[name]
        # What comes after a container's id may be options of another program's.
        given, words = _read(rest, f"{options} h:help".strip(), mixed=name not in ("exec", "ps"))
        if "help" in given:
            print(f"usage: {NAME} {name} {usage}\n\noptions: {_shown(options)}")
            return 0
        least = usage.replace("…", "").split("[")[0].split() if usage else []
        if len(words) < len(least):
            raise getopt.GetoptError(f"{name} wants {usage}")
        _check_log(said)
        containers = Containers(_root(said))
        _debug(f"{NAME} {_own_version()}: {name} {' '.join(words)}, state in {_root(said)}", said)
        try:
            code = act(containers, given, words, said)
            _debug(f"{name}: exit code {code}", said)
            return code
        finally:
            for warning in containers.warnings:
                _say(f"warning: {warning}", said, "warning")
    except getopt.GetoptError as error:
        return _say(f"{error.msg}; see: {NAME} --help", said)
    except (BundleError, Refusal, StartError) as error:
        return _say(str(error), said)
    except Interrupted as error:
        _say(str(error), said)
        return 128 + error.number
    except KeyboardInterrupt:
        _say("interrupted", said)
        return 130
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), said)


# The commands


def _create(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    _check_terminal(options, detached=True)
    containers.create(words[0], _bundle(options), (0, 1, 2), **_common(options))
    _debug_stages(said, "init: closing the pipe to signal completion: what is left is to exec the program, at start")
    _debug(f"create: {words[0]} of {_bundle(options)} waits to be started", said)
    return 0


def _run(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    name, detached = words[0], "detach" in options
    _check_terminal(options, detached=detached)
    interrupts = None
    if not detached:
        from minicontainer.linux import signalfd

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH, signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        interrupts = signalfd(signals)
    running = containers.run(name, _bundle(options), (0, 1, 2), interrupts, **_common(options))
    _debug_stages(said, "init: closing the pipe to signal completion: the program was executed")
    _debug(f"run: process 1 of {name} is {running.pid}; its program has begun", said)
    manager = os.environ.get("NOTIFY_SOCKET")
    if detached:
        if manager:
            containers.pass_on_readiness(name, manager)
        return 0
    from minicontainer.runtime.attach import accompany

    if manager:
        import threading  # it may never be ready, and we have its signals and its terminal to see to

        threading.Thread(target=containers.pass_on_readiness, args=(name, manager), daemon=True).start()
    try:
        accompany(running, interrupts)
        return running.wait()
    finally:
        if "keep" not in options:
            containers.delete(name, force=True)


def _start(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    containers.start(words[0])
    if manager := os.environ.get("NOTIFY_SOCKET"):
        containers.pass_on_readiness(words[0], manager)
    return 0


def _state(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    print(json.dumps({"pid": 0, **containers.state(words[0])}, indent=2))
    return 0


def _kill(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    number = signal_number(words[1] if len(words) > 1 else "TERM")
    for name in _named(containers, options, words[0]):
        containers.kill(name, number, everybody="all" in options)
    return 0


def _delete(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    for name in _named(containers, options, words[0]):
        containers.delete(name, force="force" in options)
    return 0


def _exec(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    try:
        return _exec_in(containers, options, words, said)
    except (BundleError, Refusal, StartError) as error:
        _say(str(error), said)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), said)
    return 255  # as with runc: 1 could have been the program's


def _exec_in(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    from minicontainer.runtime import entry

    if "process" not in options and len(words) < 2:
        raise getopt.GetoptError("exec wants a program, or --process FILE")
    wishes = entry.Wishes(
        args=tuple(words[1:]),
        process=_last(options, "process"),
        cwd=_last(options, "cwd"),
        env=tuple(options.get("env", ())),
        terminal="tty" in options,
        user=_last(options, "user"),
        additional_gids=tuple(int(gid) for gids in options.get("additional-gids", ()) for gid in gids.split(",")),
        capabilities=tuple(options.get("cap", ())),
        no_new_privileges="no-new-privs" in options or None,
        apparmor=_last(options, "apparmor"),
        label=_last(options, "process-label"),
        preserve_fds=int(_last(options, "preserve-fds") or 0),
        groups=tuple(options.get("cgroup", ())),
        ignore_paused="ignore-paused" in options,
    )
    running = entry.enter(containers, words[0], wishes, (0, 1, 2), console_socket=_last(options, "console-socket"))
    _debug_stages(said, "setns_init: about to exec: it has joined the namespaces, and is confined as process 1 is")
    _debug(f"exec: process {running.pid} has joined {words[0]}; its program has begun", said)
    if pid_file := _last(options, "pid-file"):
        with open(pid_file, "w", encoding="utf-8") as file:
            file.write(str(running.pid))
    if "detach" in options:
        return 0
    from minicontainer.linux import signalfd
    from minicontainer.runtime.attach import accompany

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    accompany(running, signalfd(signals))
    return running.wait()


def _ps(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    pids = containers.pids(words[0])
    if _last(options, "format") == "json":
        print(json.dumps(pids))
        return 0
    import subprocess

    done = subprocess.run(["ps", *(words[1:] or ["-ef"])], capture_output=True, text=True)
    if done.returncode:
        raise Refusal(f"ps: {done.stderr.strip()}")
    title, *lines = done.stdout.splitlines()
    column = title.split().index("PID") if "PID" in title.split() else 0
    print("\n".join([title, *(line for line in lines if int(line.split()[column]) in pids)]))
    return 0


def _list(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    found = containers.all()
    if _last(options, "format") == "json":
        ordered = [{"ociVersion": state["ociVersion"], "id": state["id"], "pid": 0, **state} for state in found]
        print(json.dumps(ordered, separators=(",", ":")))
    elif "quiet" in options:
        print("\n".join(state["id"] for state in found)) if found else None
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        for state in found:
            rows.append(
                (
                    state["id"], str(state.get("pid", 0)), state["status"], state["bundle"], state["created"],
                    _user(int(state["owner"])),
                )
            )  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        for row in rows:
            print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _pause(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    containers.pause(words[0])
    return 0


def _resume(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    containers.resume(words[0])
    return 0


def _update(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    from minicontainer.runtime.resources import of_options, update

    if "resources" in options:
        file = options["resources"][-1]
        text = sys.stdin.read() if file == "-" else open(file, encoding="utf-8").read()  # noqa: SIM115
        resources = json.loads(text)
    else:
        resources = of_options(options)
    update(containers, words[0], resources)
    return 0


def _events(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    from minicontainer.runtime.resources import events

    for event in events(containers, words[0], once="stats" in options, interval=_last(options, "interval") or "5s"):
        print(json.dumps(event, separators=(",", ":")), flush=True)
    return 0


def _spec(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    from minicontainer.linux.cgroups import hierarchies
    from minicontainer.runtime.bundle import default_config

    # As runc writes it, and so whoever adds one on v1, expecting none, is not told that there are two.
    unified = all(tree.version == 2 for tree in hierarchies())
    config = default_config(rootless="rootless" in options, cgroup_namespace=unified)
    file = f"{_bundle(options)}/config.json"
    try:
        with open(file, "x", encoding="utf-8") as written:
            json.dump(config, written, indent="\t")
            written.write("\n")
    except FileExistsError:
        raise Refusal(f"{file} exists; remove it first") from None
    return 0


def _features(containers: Containers, options: Options, words: Sequence[str], said: Options) -> int:
    from minicontainer.runtime.features import features

    print(json.dumps(features(), indent=2))
    return 0


_MAKE = "b:bundle= f:config= console-socket= pid-file= no-pivot no-new-keyring preserve-fds= no-subreaper"

COMMANDS: dict[str, tuple[str, str, str, Callable[[Containers, Options, Sequence[str], Options], int]]] = {
    "create": (_MAKE, "ID", "make a container of a bundle; it waits to be started", _create),
    "start": ("", "ID", "let a created container's program begin", _start),
    "run": (f"{_MAKE} d:detach keep", "ID", "create, start, wait, delete", _run),
    "state": ("", "ID", "print a container's state as JSON", _state),
    "kill": ("a:all r:regex", "ID [SIGNAL]", "send a signal (TERM) to its process 1", _kill),
    "delete": ("f:force r:regex", "ID", "remove a stopped container", _delete),
    "exec": (
        "console-socket= cwd= e:env= t:tty u:user= g:additional-gids= p:process= d:detach pid-file= process-label= "
        "apparmor= no-new-privs c:cap= preserve-fds= cgroup= ignore-paused",
        "ID [PROGRAM …]", "run another program in a container", _exec,
    ),
    "ps": ("f:format=", "ID [OPTIONS OF ps]", "list a container's processes", _ps),
    "list": ("f:format= q:quiet", "", "list the containers", _list),
    "pause": ("", "ID", "stop every process of a container where it is", _pause),
    "resume": ("", "ID", "let a paused container go on", _resume),
    "update": (
        "r:resources= memory= memory-swap= memory-reservation= cpu-period= cpu-quota= cpu-burst= cpu-share= cpu-idle= "
        "cpu-rt-period= cpu-rt-runtime= cpuset-cpus= cpuset-mems= blkio-weight= pids-limit= kernel-memory= "
        "kernel-memory-tcp= l3-cache-schema= mem-bw-schema=",
        "ID", "change the limits of a container", _update,
    ),
    "events": ("interval= stats", "ID", "print what a container uses, again and again", _events),
    "spec": ("b:bundle= rootless f:config=", "", "write a config.json to begin with", _spec),
    "features": ("", "", "print what this runtime can do, as JSON", _features),
}  # fmt: skip
"""Name → its options, its arguments, what it does, and the function."""


def signal_number(text: str) -> int:
    """9, KILL and SIGKILL are the same. Raises Refusal: no such signal."""
    name = text.upper()
    if name.isdecimal() and int(name) in set(signal.valid_signals()) | {0}:
        return int(name)
    from signal import Signals

    try:
        return Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except KeyError:
        raise Refusal(f"unknown signal {text}; see: kill -l") from None


# How it reads, and how it says what went wrong


def _read(words: Sequence[str], options: str, *, mixed: bool = False) -> tuple[Options, list[str]]:
    """The options at the beginning of `words`, or (`mixed`) anywhere, and the other words. Raises GetoptError."""
    short, long, names = "", list[str](), dict[str, str]()
    for option in options.split():
        letter, _, name = option.rpartition(":")
        long.append(name)
        if letter:
            short += letter + (":" if name.endswith("=") else "")
            names[letter] = name.rstrip("=")
    found, rest = (getopt.gnu_getopt if mixed else getopt.getopt)(list(words), short, long)
    said: Options = {}
    for option, value in found:
        name = option.removeprefix("--") if option.startswith("--") else names[option[1:]]
        said.setdefault(name, []).append(value)
    return said, rest


def _common(options: Options) -> dict[str, Any]:
    # Systemd's protocol for sockets that are handed over, sd_listen_fds(3): process 1 of the container is who is meant.
    listen = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_FDS", "0").isdecimal() else 0
    preserved = _open_among(3, listen + int(_last(options, "preserve-fds") or 0))
    env = (f"LISTEN_FDS={listen}", "LISTEN_PID=1") if listen else ()

    def changes(spec: Any) -> Any:
        process = spec.process.replace(preserve_fds=preserved, env=(*spec.process.env, *env))
        return spec.replace(
            process=process, no_pivot="no-pivot" in options, new_keyring="no-new-keyring" not in options
        )

    return {
        "config": _last(options, "config"),
        "console_socket": _last(options, "console-socket"),
        "pid_file": _last(options, "pid-file"),
        "notify": bool(os.environ.get("NOTIFY_SOCKET")),
        "changes": changes,
    }


def _open_among(first: int, many: int) -> tuple[int, ...]:
    """So many file descriptors; -1 for each that was not open when we were started (now is early enough)."""
    found = []
    for fd in range(first, first + many):
        try:
            os.fstat(fd)
        except OSError:
            fd = -1
        found.append(fd)
    return tuple(found)


def _check_terminal(options: Options, *, detached: bool) -> None:
    """Whoever leaves must say who gets the terminal. (What the configuration says is read again by who makes it.)"""
    from minicontainer.runtime.bundle import load

    process = load(os.path.abspath(_bundle(options)), _last(options, "config")).get("process")
    wanted, given = isinstance(process, dict) and process.get("terminal") is True, "console-socket" in options
    if detached and wanted and not given:
        raise Refusal(
            "use --console-socket: cannot allocate tty if we will detach without setting console socket, and nobody "
            "would have its master"
        )


def _named(containers: Containers, options: Options, name: str) -> list[str]:
    """The container `name`; with --regex, all whose names match."""
    if "regex" not in options:
        return [name]
    import re

    return [state["id"] for state in containers.all() if re.search(name, state["id"])]


def _last(options: Options, name: str) -> str | None:
    return options[name][-1] if name in options else None


def _bundle(options: Options) -> str:
    return _last(options, "bundle") or os.getcwd()


def _root(said: Options) -> str:
    return said["root"][-1] if "root" in said else default_root()


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _say(text: str, said: Options, level: str = "error") -> int:
    """On standard error, and where --log wants it: whoever drives us reads it there."""
    line = " ".join(text.split("\n"))
    if _log_file(said):
        _log(line, said, level)
    print(f"{NAME}: {line}", file=sys.stderr)
    return 1


def _debug(text: str, said: Options) -> None:
    """With --debug, where --log wants it, else on standard error."""
    if "debug" in said or _last(said, "log-level") == "debug":
        _log(text, said, "debug")


def _debug_stages(said: Options, last: str) -> None:
    """How a program came to be, once it has. Each stage begins with the words that runc's log has for it: by them, who
    knows that log, and what reads it, finds his way in ours."""
    _debug("nsexec container setup: a process was born, clone3(2), for the namespaces of the container", said)
    _debug("child process in init(): it has made what the configuration asks for, and confined itself", said)
    _debug(last, said)


def _log(line: str, said: Options, level: str) -> None:
    """One entry, as the logging library of runc writes it, and containerd and podman read it: JSON or key=value."""
    import time

    entry = {"level": level, "msg": line, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    if _last(said, "log-format") == "json":
        text = json.dumps(entry, separators=(",", ":"))
    else:
        text = f'time="{entry["time"]}" level={level} msg={json.dumps(line, ensure_ascii=False)}'
    if log := _log_file(said):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    else:
        print(text, file=sys.stderr)


def _log_file(said: Options) -> str:
    return (_last(said, "log") or "").removeprefix("file:")


def _check_log(said: Options) -> None:
    kind, colon, _ = (_last(said, "log") or "").partition(":")
    if colon and "/" not in kind and kind != "file":
        raise Refusal(f"--log {_last(said, 'log')}: we log to a file; there is no {kind} here")
    if _last(said, "log-format") not in (None, "text", "json"):
        raise Refusal(f"--log-format {_last(said, 'log-format')}: it is text or json")


def _help() -> str:
    lines = [f"usage: {NAME} [--root DIR] [--log FILE] [--log-format text|json] COMMAND …", "", "commands:"]
    lines += [f"  {name:<9} {usage:<22} {what}" for name, (_, usage, what, _) in COMMANDS.items()]
    return "\n".join([*lines, "", f"options of a command: {NAME} COMMAND --help"])


def _shown(options: str) -> str:
    shown = []
    for option in options.split():
        letter, _, name = option.rpartition(":")
        shown.append((f"-{letter}, " if letter else "") + "--" + name.replace("=", " VALUE"))
    return "; ".join(shown) or "none"


def _own_version() -> str:
    from minicontainer import __version__

    return __version__
