"""Which containers ``ps`` lists: all are looked at, those that a user asks for are kept.

A look at two hundred containers is to take some milliseconds, so what is asked for of a container's configuration is
asked first, and its state, which takes a look at the process table, only of those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.restarting import is_due
from minicontainer.engine.store import Config, State, Store
from minicontainer.record import Record
from minicontainer.steps import Steps
from minicontainer.steps.group import find_groups

FILTERS = ("name", "id", "label", "network", "ancestor", "status", "exited", "health")
STATUSES = ("created", "starting", "running", "paused", "restarting", "exited")

HEALTH = ("starting", "healthy", "unhealthy", "none")


class Row(Record):
    """A container in the list, looked at once."""

    config: Config
    state: State
    status: str
    """That of its state; or paused, or restarting."""
    health: str = "none"
    """Starting, healthy, unhealthy; none: it does not run, or nobody checks."""


def listed(
    store: Store,
    state_of: Callable[[Config], State],
    steps: Steps,
    filters: Sequence[str] = (),
    *,
    all: bool = False,
    last: int | None = None,
) -> list[Row]:
    """The containers that `filters` (``NAME=VALUE``) let through, the oldest first.

    Those of one filter are alternatives, except labels, which all must be there; different filters must all hold, as
    docker's. Unless `all`, or a filter asks for a state, only those that run. `last`: of the last so many made.
    Raises EngineError: a filter that is none.
    """
    wanted = _read(filters)
    everything = all or last is not None or "status" in wanted or "exited" in wanted
    configs = store.all()
    if last is not None:
        configs = configs[-last:] if last else []
    found, restarting = list[tuple[Config, State]](), set[str]()
    for config in configs:
        if not _fits(config, wanted):
            continue
        state = state_of(config)
        if state.status == "exited" and config.remove and not store.is_there(config):
            continue  # --rm, and it has gone just now
        due = is_due(store, config, state)
        if everything or due or state.status in ("running", "starting"):
            found.append((config, state))
            if due:
                restarting.add(config.id)
    groups = find_groups([config.group for config, state in found if state.status == "running"])
    rows = []
    for config, state in found:
        group = groups.get(config.group) if state.status == "running" else None
        paused = group is not None and "freezer" in group and steps.is_frozen(group)
        status = "paused" if paused else "restarting" if config.id in restarting else state.status
        rows.append(Row(config, state, status, _health(store, config, state)))
    return [row for row in rows if _is_so(row, wanted)]


def _read(filters: Sequence[str]) -> dict[str, list[str]]:
    wanted = dict[str, list[str]]()
    for text in filters:
        name, equals, value = text.partition("=")
        if name not in FILTERS or not equals:
            raise EngineError(f'--filter "{text}": write NAME=VALUE, with one of {", ".join(FILTERS)}')
        if name == "status" and value not in STATUSES:
            raise EngineError(f'--filter "{text}": a status is one of {", ".join(STATUSES)}')
        if name == "health" and value not in HEALTH:
            raise EngineError(f'--filter "{text}": health is one of {", ".join(HEALTH)}')
        if name == "exited" and not (value.isascii() and value.isdecimal()):
            raise EngineError(f'--filter "{text}": write an exit status, such as exited=0')
        wanted.setdefault(name, []).append(value)
    return wanted


def _fits(config: Config, wanted: dict[str, list[str]]) -> bool:
    return all(name not in _OF_CONFIG or _OF_CONFIG[name](config, values) for name, values in wanted.items())


def _health(store: Store, config: Config, state: State) -> str:
    if not config.health.test or state.status != "running":
        return "none"
    from minicontainer.engine.health import health_of

    found = health_of(store, config, state)
    return found.status if found else "none"


def _is_so(row: Row, wanted: dict[str, list[str]]) -> bool:
    if "health" in wanted and row.health not in wanted["health"]:
        return False
    if "status" in wanted and row.status not in wanted["status"]:
        return False
    return "exited" not in wanted or (row.state.status == "exited" and str(row.state.exit_code) in wanted["exited"])


def _has_name(config: Config, values: list[str]) -> bool:
    """Docker takes a regular expression that is found anywhere in the name."""
    if all(value.replace("-", "").replace("_", "").isalnum() for value in values):
        return any(value in config.name for value in values)  # `re` takes as long to import as the rest
    import re

    try:
        return any(re.search(value, config.name) for value in values)
    except re.error as error:
        raise EngineError(f"--filter name: cannot be understood as a regular expression: {error}") from None


def _has_labels(config: Config, values: list[str]) -> bool:
    labels = dict(config.labels)
    pairs = [value.partition("=") for value in values]
    return all(name in labels and (not equals or labels[name] == value) for name, equals, value in pairs)


def _is_of(config: Config, values: list[str]) -> bool:
    image, digest = config.image, config.image_id.rpartition(":")[2]
    return any(
        value in (image, image.rpartition(":")[0], f"{image}:latest") or (len(value) >= 4 and digest.startswith(value))
        for value in (value.removeprefix("sha256:") for value in values)
    )


def networks_of(config: Config) -> list[str]:
    """The names of those that a container is on; of one that has none of its own, host or none."""
    return [one.network for one in config.networks] or ["host" if "net" in config.shared else "none"]


_OF_CONFIG: dict[str, Callable[[Config, list[str]], bool]] = {
    "name": _has_name,
    "id": lambda config, values: any(config.id.startswith(value) for value in values),
    "label": _has_labels,
    "network": lambda config, values: bool(set(values) & {*networks_of(config)}),
    "ancestor": _is_of,
}
