"""From an exception in one process to an error message in another: which step, which call, what to do about it."""

from __future__ import annotations

import errno
import os

from minicontainer.linux import Namespace
from minicontainer.linux.stub import errno_of
from minicontainer.runtime.errors import ProgramError, StartError
from minicontainer.steps import EXERCISE, step_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 2000  # characters of an error's text that are told


def describe(error: BaseException) -> dict[str, Any]:
    """What the caller needs to know of an exception, as a message: step, errno, text."""
    step, line, trace = None, 0, error.__traceback__
    while trace is not None:  # from the outermost call inwards; nothing can be imported here, the host's files are gone
        code = trace.tb_frame.f_code
        if code.co_filename.startswith(EXERCISE):
            step, line = step_of(code), trace.tb_lineno
        step = step or step_of(code)
        trace = trace.tb_next
    where = f" (line {line} of the cell)" if line else ""
    number = getattr(error, "errno", None)
    return {
        "error": _text(error)[:LONGEST] + where,
        "step": step,
        "errno": number if isinstance(number, int) else None,
        "exit_code": getattr(error, "exit_code", 125),
    }


def _text(error: BaseException) -> str:
    try:
        if not isinstance(error, OSError):
            return f"{type(error).__name__}: {error}"
        text = str(error.strerror or error)
        return f"{error.filename}: {text}" if error.filename else text
    except Exception:  # the text of somebody else's exception is somebody else's code
        return type(error).__name__


def explain(message: dict[str, Any]) -> StartError:
    """The error that the caller raises for such a message, with what to do where we know."""
    if "program" in message:  # from the stub, which is too small to say more than this and the number
        message = describe(ProgramError.of_execve(message["program"], errno_of(message["errno"])))
    step, number, text = message["step"], message["errno"], message["error"]
    advice = _advice(step, number, text)
    line = f"{step}: {text}" if step else text
    return StartError(
        f"{line}; {advice}" if advice else line, step=step, errno=number, exit_code=message.get("exit_code", 125)
    )


def _advice(step: str | None, number: int | None, text: str) -> str | None:
    if step is None:
        return None
    if step.partition(".")[0] in _SELF_EXPLAINED:
        return None
    if number == errno.EPERM:
        from minicontainer.linux.capabilities import capget

        if step.startswith("pid.") and os.geteuid() != 0:
            return "user namespaces are closed to this user (see /proc/sys/user/max_user_namespaces); run it as root"
        if "SYS_ADMIN" not in capget():
            return "it needs CAP_SYS_ADMIN, which this process lacks: run it as root (sudo), or as an ordinary user"
        return None
    if number == errno.ENOSPC and step in _NAMESPACE_OF and text.startswith(("clone3", "unshare")):
        limit = _NAMESPACE_OF[step].proc_name
        limits = f"/proc/sys/user/max_{limit}_namespaces" + (
            " and, for an ordinary user, /proc/sys/user/max_user_namespaces" if step == "pid.spawn_init" else ""
        )
        return f"no more {_NAMESPACE_OF[step].name} namespaces: see {limits}"
    if number == errno.EINVAL and step in _NAMESPACE_OF and text.startswith(("clone3", "unshare")):
        kind = _NAMESPACE_OF[step]
        return (
            f"this kernel may have no {kind.name} namespaces (Linux {kind.since}, {kind.kernel_option}): "
            f"run `minicontainer check`"
            + (f", or share the host's with --{OPTION[kind]} host" if kind in OPTION else "")
        )
    return None


_SELF_EXPLAINED = {"group", "memory", "cpu", "freezer", "pids", "io", "devices", "packets", "events", "scarce"}
"""The steps on control groups say what would work themselves: it depends on what the files say now."""

_NAMESPACE_OF = {
    "mount.make_private": Namespace.MOUNT,
    "uts.set_names": Namespace.UTS,
    "ipc.private_queues": Namespace.IPC,
    "pid.spawn_init": Namespace.PID,
    "network.bring_up_loopback": Namespace.NETWORK,
    "cgroup.hide_cgroup_path": Namespace.CGROUP,
    "time.offset_clocks": Namespace.TIME,
}

OPTION = {
    Namespace.UTS: "uts",
    Namespace.IPC: "ipc",
    Namespace.NETWORK: "network",
    Namespace.CGROUP: "cgroupns",
    Namespace.TIME: "timens",
}
"""The option of `run` that shares the host's namespace of a kind, as docker spells them where docker has them."""
