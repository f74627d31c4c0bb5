"""Hooks: programs that a configuration has run at certain moments of a container's life, with its state on their
standard input.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#posix-platform-hooks
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from minicontainer.runtime.errors import StartError
from minicontainer.runtime.spec import Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run_hooks(moment: str, hooks: Sequence[Hook], state: dict[str, Any]) -> None:
    """Run the hooks of one moment ("createRuntime"), one after the other; none after the first that fails.

    Each finds `state` as JSON on its standard input, and the environment of its configuration, nothing else. Its
    standard output goes nowhere, its standard error into the error. Raises StartError: one could not be run, did not
    end in its time (it is killed then), or ended with another status than 0.
    """
    if not hooks:
        return
    import subprocess

    for number, hook in enumerate(hooks):
        what = f"hook {moment}[{number}] {hook.path}"
        try:
            done = subprocess.run(
                list(hook.args) or [hook.path],
                executable=hook.path,
                env=dict(item.partition("=")[::2] for item in hook.env),
                input=json.dumps(state).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=hook.timeout,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise StartError(f"{what}: not done within its timeout of {hook.timeout} s; it was killed") from None
        except OSError as error:
            raise StartError(f"{what}: {os.strerror(error.errno or 0)}", errno=error.errno) from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
            raise StartError(f"{what}: {how}" + (f": {said[-500:]}" if said else ""))
