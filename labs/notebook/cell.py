"""The process that a cell under ``%%isolated`` or ``%%apart`` runs in; only `labs.notebook.isolated` starts it.

It is process 1 of a sandbox of throw-away namespaces. Where the cell is to have new ones in addition, it is a child of
this process that was born into them.
"""

from __future__ import annotations

import ast
import base64
import builtins
import io
import json
import linecache
import os
import re
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labs.notebook import shown, views
from labs.notebook.views import VIEWS, Unclear
from minicontainer.linux import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, Namespace, mount
from minicontainer.linux.notation import name_flags_in_errors
from minicontainer.steps import Steps
from minicontainer.steps.loading import define, read_exercises

LENGTH = struct.Struct("!Q")


def main() -> int:
    """Run the cell that the request is about; returns the exit status."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    channel = socket.socket(fileno=int(sys.argv[2]))
    channel.set_inheritable(False)
    name_flags_in_errors()
    shown.send = lambda bundle, metadata: _send(channel, {"data": dict(bundle), "metadata": dict(metadata)})
    kinds = [Namespace.named(name) for name in request["new"]]
    if not kinds:
        views.before = views.Before()
        return _performed(request)
    outside = views.Before().links
    mapped, tell = os.pipe()

    def inside() -> int:
        os.close(tell)
        os.read(mapped, 1)
        os.close(mapped)
        _at_home(kinds)
        views.before = views.Before()
        views.before.sandbox = outside
        return _performed(request)

    pid = Steps().spawn_init(inside, kinds)
    if Namespace.USER in kinds:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 0 1")
    os.close(mapped)
    os.close(tell)
    _, status = os.waitpid(pid, 0)
    return max(os.waitstatus_to_exitcode(status), 0) or (1 if status else 0)


def _at_home(kinds: list[Namespace]) -> None:
    """What unshare(1) does for whoever asks it: mounts that do not spread, and a /proc of the new PID namespace."""
    if Namespace.MOUNT in kinds:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        if Namespace.PID in kinds:
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _performed(request: Mapping[str, Any]) -> int:
    functions, wrong = define(read_exercises([Path(request["session"])]).values())
    for error in wrong.values():
        print(error, file=sys.stderr)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("from minicontainer.linux import *\nimport os", names)
    names |= {"display": _display}
    names |= request["variables"]
    names |= {name.rpartition(".")[2]: function for name, function in functions.items()}
    vars(builtins)["get_ipython"] = lambda: _Magics(names)
    source = request["source"]
    if "%packets" in request["cell"]:
        views.listen = _ear
        views.packets_heard = _ear()
    if "IPython" in source:
        import IPython.display

        vars(IPython.display)["display"] = _display
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    try:
        if request["explain"]:
            from minicontainer.cli.explain import show
            from minicontainer.linux.recording import recording
            from minicontainer.steps import step_of

            with recording(show, step_of):
                _run(source, names)
        else:
            _run(source, names)
    except Exception as error:
        begin = error.__traceback__
        while begin and begin.tb_frame.f_code.co_filename != "<cell>":
            begin = begin.tb_next
        traceback.print_exception(type(error), error, None if isinstance(error, SyntaxError) else begin)
        return 1
    finally:
        if "matplotlib.pyplot" in sys.modules:
            plt = sys.modules["matplotlib.pyplot"]
            for number in plt.get_fignums():
                _display(plt.figure(number))
    return 0


def _run(source: str, names: dict[str, Any]) -> None:
    """Execute a cell; what its last line is worth is shown, as in a notebook."""
    tree = ast.parse(source, "<cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        if value is not None:
            _display(value)


def _display(*values: object, **_: object) -> None:
    """What `display` of a notebook is."""
    for value in values:
        bundle = {"text/plain": repr(value)}
        if hasattr(value, "savefig"):
            drawn = io.BytesIO()
            value.savefig(drawn, dpi=100, facecolor="white")
            bundle["image/png"] = base64.b64encode(drawn.getvalue()).decode()
        for kind, method in (
            ("text/html", "_repr_html_"),
            ("image/svg+xml", "_repr_svg_"),
            ("image/png", "_repr_png_"),
        ):
            made = getattr(value, method, lambda: None)()
            if made:
                bundle[kind] = base64.b64encode(made).decode() if isinstance(made, bytes) else str(made)
        shown.show(bundle)


def _send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    """Hand something over, and wait until the notebook has shown it: so it stands where it belongs in the output."""
    sys.stdout.flush()
    sys.stderr.flush()
    text = json.dumps(message).encode()
    try:
        channel.sendall(LENGTH.pack(len(text)) + text)
        channel.recv(1)
    except OSError:
        pass  # the notebook has gone


class _Magics:
    """Stands for the shell of a notebook: what a cell apart may ask for with % and !."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def run_line_magic(self, name: str, line: str, *_: object) -> None:
        if name not in VIEWS:
            raise Unclear(f"%{name} does not work in a cell apart; there are: {', '.join(f'%{one}' for one in VIEWS)}")
        VIEWS[name](self._filled(line))

    def system(self, command: str) -> None:
        sys.stdout.flush()
        subprocess.run(["sh", "-c", self._filled(command)])

    def getoutput(self, command: str) -> list[str]:
        done = subprocess.run(["sh", "-c", self._filled(command)], stdout=subprocess.PIPE, text=True)
        return done.stdout.splitlines()

    def _filled(self, text: str) -> str:
        """With the values of {expressions}, as far as there are any: awk's braces stay."""

        def value(found: re.Match[str]) -> str:
            try:
                return str(eval(found[1], self._names))
            except Exception:
                return found[0]

        return re.sub(r"\{([^{}]+)\}", value, text)


PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}


def _ear() -> Any:
    """Listen on all devices of this network namespace from now on; returns what tells what was heard."""
    everything = 3  # ETH_P_ALL
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(everything))
    ear.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    ear.setblocking(False)
    begun, rows = time.time_ns(), list[tuple[str, ...]]()

    def heard() -> list[tuple[str, ...]]:
        while True:
            try:
                packet, ancillary, _, (device, ethertype, kind, *_) = ear.recvmsg(2048, 128)
            except BlockingIOError:
                return rows
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            when = f"{(seconds * 10**9 + nanoseconds - begun) / 1e6:.2f}"
            rows.append((when, device, "leaves" if kind == 4 else "comes", *_told(packet, ethertype), str(len(packet))))

    return heard


def _told(packet: bytes, ethertype: int) -> tuple[str, str, str]:
    """Protocol, sender, receiver."""
    if ethertype == 0x0806 and len(packet) >= 28:
        asks = packet[7] == 1
        return ("ARP who has" if asks else "ARP is at", _v4(packet[14:18]), _v4(packet[24:28]))
    if ethertype == 0x0800 and len(packet) >= 20:
        protocol, payload = packet[9], packet[(packet[0] & 15) * 4 :]
        source, destination = _v4(packet[12:16]), _v4(packet[16:20])
    elif ethertype == 0x86DD and len(packet) >= 40:
        protocol, payload = packet[6], packet[40:]
        source, destination = (socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24))
    else:
        return f"0x{ethertype:04x}", "", ""
    if protocol in (6, 17) and len(payload) >= 4:
        ports = struct.unpack("!HH", payload[:4])
        source, destination = f"{source}:{ports[0]}", f"{destination}:{ports[1]}"
    return PROTOCOLS.get(protocol, f"protocol {protocol}"), source, destination


def _v4(address: bytes) -> str:
    return socket.inet_ntoa(address)


if __name__ == "__main__":
    sys.exit(main())
