"""A moment as docker takes one after ``--since`` and ``--until``."""

from __future__ import annotations

import re
import time
from datetime import datetime

from minicontainer.engine.errors import EngineError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:(\d+\.?\d*|\.\d+)(h|ms|us|µs|ns|m|s))")
_LAST = 253402300800.0
"""The year 10000, in seconds since the epoch: no stamp of ours goes so far."""


def moment(text: str | None, option: str) -> float | None:
    """Seconds since the epoch, of None None.

    ``10m``, ``1h30m``, ``1.5s``: so long ago; ``1136073600.25``: that; ``2026-11-26``, ``2026-11-26T10:00:00.5``: here,
    ``…Z``, ``…+01:00``: there (RFC 3339). Raises EngineError, which names the option.
    """
    if text is None:
        return None
    try:
        if re.fullmatch(r"-?\d+(\.\d*)?", text, re.ASCII):
            found = float(text)
        elif text and not _DURATION.sub("", text.lstrip("-+")):
            long = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
            found = time.time() - (-long if text.startswith("-") else long)
        elif re.match(r"\d{4}-\d\d-\d\d", text):
            found = datetime.fromisoformat(text).timestamp()
        else:
            raise ValueError
    except (ValueError, OverflowError):
        raise EngineError(
            f'{option} "{text}": write how long ago, as 10m or 1h30m; a time, as 2026-11-26T10:00:00Z; or Unix seconds'
        ) from None
    return min(max(found, 0.0), _LAST - 1)
