"""Hooks: programs that a configuration has run at certain moments of a container's life, with its state on their
standard input.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#posix-platform-hooks
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from minicontainer.linux import signal
from minicontainer.linux.stub import FAULT, arguments, errno_of
from minicontainer.runtime.channel import path_of
from minicontainer.runtime.errors import StartError
from minicontainer.runtime.spec import Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run_hooks(moment: str, hooks: Sequence[Hook], state: dict[str, Any], stub: int | None = None) -> None:
    """Run the hooks of one moment ("createRuntime"), one after the other; none after the first that fails.

    Each finds `state` as JSON on its standard input, and the environment of its configuration, nothing else. Its
    standard output goes nowhere, its standard error into the error. Raises StartError: one could not be run, did not
    end in its time (it is killed then), or ended with another status than 0.

    Those that are files of the container's go through the `stub`, as its program does (minicontainer/linux/stub.py).
    """
    if not hooks:
        return
    import subprocess

    for number, hook in enumerate(hooks):
        what = f"hook {moment}[{number}] {hook.path}"
        args: list[str | bytes] = list(hook.args) or [hook.path]
        place = path_of(stub) if stub is not None else None
        told, tell = os.pipe2(os.O_CLOEXEC)
        os.set_inheritable(tell, place is not None)
        try:
            process = subprocess.Popen(
                arguments(tell, FAULT + b"}", hook.path, [str(arg) for arg in args]) if place else args,
                executable=place or hook.path,
                env=dict(item.partition("=")[::2] for item in hook.env),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                close_fds=not place,  # the stub is found by its number; all of ours close as it is executed, but `tell`
            )
        except OSError as error:
            os.close(told)
            raise StartError(f"{what}: {os.strerror(error.errno or 0)}", errno=error.errno) from None
        finally:
            os.close(tell)
        with process:
            try:
                _, said = process.communicate(json.dumps(state).encode(), timeout=hook.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
                os.close(told)
                raise StartError(f"{what}: not done within its timeout of {hook.timeout} s; it was killed") from None
        with open(told, "rb", buffering=0) as answer:
            if fault := answer.read():  # of the stub: it could not execute the hook
                number_of = errno_of(json.loads(fault.removeprefix(b"error "))["errno"])
                raise StartError(f"{what}: {os.strerror(number_of)}", errno=number_of)
        if process.returncode:
            text = said.decode(errors="replace").strip()
            number_of, how = -process.returncode, f"exit code {process.returncode}"
            if number_of > 0:
                name = signal.strsignal(number_of) or ""
                how = f"signal {number_of} ({name.lower()})"
            raise StartError(
                f"error running hook: {moment} hook failed with {how}: {what}" + (f": {text[-500:]}" if text else "")
            )
