"""Health checks on the command line: the options of ``run`` and ``create``, and ``healthcheck run``."""

from __future__ import annotations

import argparse
import re

from minicontainer.cli.commands import _engine, _let_interrupt
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Check

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def check_of(arguments: argparse.Namespace) -> Check:
    """What is said of the check. Raises EngineError."""
    if arguments.no_healthcheck:
        if any(value is not None for name, value in vars(arguments).items() if name.startswith("health_")):
            raise EngineError("--no-healthcheck conflicts with --health-* options")
        return Check(("NONE",))
    command = arguments.health_cmd
    if command == "":
        raise EngineError('--health-cmd "": write a command, such as: --health-cmd "test -e /run/ready"')
    retries = arguments.health_retries
    if retries is not None and not (retries.isascii() and retries.isdecimal()):
        raise EngineError(f'--health-retries "{retries}": write how many failures in a row, at least 1')
    return Check(
        test=() if command is None else ("NONE",) if command == "none" else ("CMD-SHELL", command),
        interval=0.0 if arguments.health_interval == "disable" else _seconds(arguments, "interval"),
        timeout=_seconds(arguments, "timeout"),
        start_period=_seconds(arguments, "start_period"),
        retries=None if retries is None else int(retries),
        on_failure=arguments.health_on_failure,
    )


def _seconds(arguments: argparse.Namespace, name: str) -> float | None:
    """``500ms``, ``10s``, ``1m30s``: Go's words, which are docker's."""
    text = getattr(arguments, f"health_{name}")
    if text is None:
        return None
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise EngineError(f'--health-{name.replace("_", "-")} "{text}": write a time, such as 500ms, 10s or 1m30s')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if name == "interval" and seconds < 0.001:
        raise EngineError(f'--health-interval "{text}": write a time of at least 1ms, or disable')
    return seconds


def healthcheck(arguments: argparse.Namespace) -> int:
    """``minicontainer healthcheck run``: silent and 0 when the container is well, as podman's."""
    _let_interrupt()
    from minicontainer.engine.health import check_now

    engine = _engine(arguments)
    health = check_now(engine, engine.store.find(arguments.container))
    if health.status != "healthy" or health.streak:
        print(health.status if health.status != "healthy" else "unhealthy")
    return 0 if health.log[-1]["ExitCode"] == 0 else 1
