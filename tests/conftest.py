"""What every test has: the graders' plugin, the watch over the host, the command, the busybox image."""

from __future__ import annotations

import os

import hypothesis
import pytest

pytest_plugins = [
    "labs.grading.pytest_plugin", "tests.host_state", "tests.command", "tests.netns", "tests.neighbourhood"
]  # fmt: skip

ENGINE = ("linux", "steps", "runtime", "images", "network", "engine", "cli")

# No test connects a container to the host's own network: those that want one make a host, `tests.neighbourhood`.
os.environ["MINICONTAINER_NETWORK"] = "none"

# No deadline for one example: two cores are shared with whoever else works here. No database in the checkout.
hypothesis.settings.register_profile("tests", database=None, deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For those who have more time than a run of the whole suite."""
    parser.addoption("--rounds", type=int, default=30, help="so many starts and stops of a container (30)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of the engine leaves no trace, whether it thinks of it or not. First set up, so last torn down."""
    for item in items:
        if item.path.parent.name in ENGINE and item.path.parent.parent.name == "tests":
            item.fixturenames.insert(0, "leaves_no_trace")  # type: ignore[attr-defined]
