"""Health checks: a command in a container that says whether it is well, and what is done when it is not.

CONTAINER/health has what docker shows as State.Health: the status, how often in a row it was not well, the last five
results; and of which start of the container it is. When the next check is due follows from it, so nothing is lost with
whoever is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time

from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import files, signal
from minicontainer.record import Record
from minicontainer.runtime.errors import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.engine.engine import Engine

ACTIONS = ("none", "restart", "stop", "kill")
_KEPT, _LONGEST = 5, 4096
"""Results, and bytes of what a command has written: docker's."""


class Health(Record):
    """How well a container is, since it was started."""

    began: float | None = None
    """When that was: its State.began."""
    status: str = "starting"
    streak: int = 0
    """How many checks in a row have failed."""
    log: tuple[dict[str, Any], ...] = ()
    """The last results, in docker's words; Start and End in seconds since the epoch."""


def has_check(config: Config) -> bool:
    """Whether there is something to be run."""
    return bool(config.health.test) and config.health.test[0] != "NONE"


def check_wishes(config: Config) -> None:
    """Raises EngineError: what is wished of checks cannot be."""
    check = config.health
    if check.on_failure not in (None, *ACTIONS):
        raise EngineError(f'--health-on-failure "{check.on_failure}": write one of {", ".join(ACTIONS)}')
    if check.retries is not None and check.retries < 1:
        raise EngineError(f"--health-retries {check.retries}: write how many failures in a row, at least 1")
    if check.timeout is not None and check.timeout < 0.001:
        raise EngineError("--health-timeout: write a time of at least 1ms, such as 30s")
    if check.on_failure not in (None, "none") and not has_check(config):
        raise EngineError(f"--health-on-failure {check.on_failure}: there is no check; say one with --health-cmd")


def health_of(store: Store, config: Config, state: State) -> Health | None:
    """How well it is; None: nobody checks."""
    if not has_check(config):
        return None
    try:
        data = json.loads(files.read(f"{store.directory(config.id)}/health"))
        found = Health(**{**data, "log": tuple(data["log"])})
    except (OSError, ValueError, TypeError, KeyError):
        return Health(state.began)
    return found if found.began == state.began else Health(state.began)


def next_check(store: Store, config: Config, state: State) -> float | None:
    """When the next check of a running container is due, in seconds since the epoch; None: only when asked for."""
    health, interval = health_of(store, config, state), config.health.every
    if health is None or not interval:
        return None
    return float(health.log[-1]["End"] if health.log else state.began or 0.0) + interval


def check_now(engine: Engine, config: Config) -> Health:
    """Check a running container, write the result down, and if it has become unhealthy, do what is wished then.

    Raises EngineError: there is no check, it does not run, it is paused.
    """
    store, check = engine.store, config.health
    if not has_check(config):
        raise EngineError(f'container "{config.name}" has no health check: make it with --health-cmd')
    state = engine.state(config)
    if state.status != "running" or engine.paused(config):
        what = "is paused" if state.status == "running" else "does not run"
        raise EngineError(f'container "{config.name}" {what}: its health cannot be checked')
    started = time.time()
    code, output = _run(engine, config)
    from minicontainer.engine.restarting import turn

    with turn(store, config.id):
        before = health_of(store, config, state) or Health(state.began)
        result = {"Start": started, "End": time.time(), "ExitCode": code, "Output": output}
        log = (*before.log, result)[-_KEPT:]
        if code == 0:
            after = before.replace(status="healthy", streak=0, log=log)
        elif before.status == "starting" and started < (state.began or 0) + (check.start_period or 0):
            after = before.replace(log=log)  # it is not expected to be well yet
        else:
            streak = before.streak + 1
            status = "unhealthy" if streak >= check.tries else before.status
            after = before.replace(status=status, streak=streak, log=log)
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            files.replace(f"{store.directory(config.id)}/health", json.dumps(after.asdict()))
    if after.status != before.status:
        store.tell(config, f"health_status: {after.status}")
    if after.status == "unhealthy" and code != 0 and engine.store.state(config.id).began == state.began:
        _act(engine, config, state)
    return after


def _act(engine: Engine, config: Config, state: State) -> None:
    """Podman's --health-on-failure. What is killed is restarted by its policy; what is stopped is not."""
    from minicontainer.engine import detached
    from minicontainer.engine.restarting import restart_if_due

    action = config.health.on_failure
    with contextlib.suppress(EngineError):  # it has ended by itself meanwhile
        if action == "kill":
            detached.send(config, state, signal.SIGKILL)
        elif action == "stop":
            engine.stop(config)
        elif action == "restart":
            detached.stop(config, state, 10)
            engine.store.wait(config.id)
            restart_if_due(engine, config.id, regardless=True)


def _run(engine: Engine, config: Config) -> tuple[int, str]:
    """The exit status of the command, and what it has written; -1: it was killed when its time was over."""
    from minicontainer.runtime.attach import put_down

    kind, *words = config.health.test
    args = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            running = engine.exec(config, args, (None, theirs, theirs))
        except StartError as error:
            return error.exit_code, str(error)
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        deadline, output, over, open_still = time.monotonic() + config.health.limit, b"", False, True
        while True:
            left = max(deadline - time.monotonic(), 0)
            ready = select.select([running.pidfd, *([ours] if open_still else [])], [], [], left)[0]
            if ours in ready:
                more = _read(ours)
                open_still, output = bool(more), (output + more)[:_LONGEST]
            elif not ready:
                over = True
                put_down(running)
                break
            elif running.pidfd in ready:
                break
        code = running.wait()
        os.close(running.pidfd)
        text = output.decode(errors="replace")
        return (-1, f"Health check exceeded timeout ({config.health.limit:g}s)\n{text}") if over else (code, text)
    finally:
        os.close(ours)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""
