"""What several tests of commands have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.command import Command, one_line
from tests.host_state import HostUnchanged

Refused = Callable[..., str]


@pytest.fixture
def refused(minicontainer: Command, host_unchanged: HostUnchanged) -> Refused:
    """Run a command that must fail with this exit code, one line, and no trace; returns the line."""

    def run(exit_code: int, *arguments: str, **options: object) -> str:
        before = minicontainer.containers()
        with host_unchanged():
            done = minicontainer(*arguments, **options)
        assert done.returncode == exit_code, done
        assert done.stdout == ""
        assert minicontainer.containers() == before
        return one_line(done.stderr)

    return run
