"""Snapshots and clones of containers: which layers there are, what they are called, who still needs them.

STATE/layers/snap-HEX/diff           what a container had written when it was frozen; nothing writes to it any more
STATE/layers/lock                    held, shared, while a layer is made that nobody names yet; exclusively, to sweep
STATE/containers/ID/snapshots/NAME.json  a snapshot: what layers it is made of
STATE/containers/ID/restoring        there while the container is being put back: its upper layer is to be thrown away,
                                     and these are to be its layers. Whoever finds it does it again
STATE/containers/ID/freezing         there while it runs and stands still for a snapshot (`engine.standstill`)

A snapshot is a list of layers, and so is what a container lies on. Layers are shared by whoever names them, and gone
with the last who does; nothing else refers to them, so a clone does not need its source, nor a snapshot the later ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from minicontainer.engine.errors import TOO_DEEP, EngineError
from minicontainer.engine.store import Config, State, Store
from minicontainer.linux import files
from minicontainer.record import Record
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FROZEN = "snap-"
"""How the names of layers begin that were frozen here; the others are an image's."""

MOST_LAYERS = 100
"""Below a container: then those in the upper half are merged. overlayfs takes 500, and looks into each for every name
that is in none."""


class Unreadable(EngineError):
    """The record of a snapshot is damaged."""


class Snapshot(Record):
    """What a container was like at one moment."""

    name: str
    layers: tuple[str, ...]
    """The topmost first: names of directories in STATE/layers."""
    comment: str = ""
    created: float = 0.0
    """Seconds since the epoch."""


class Taking(Record):
    """What snapshots are taken with: the engine's store and steps, and what it knows of a container."""

    store: Store
    steps: Steps
    state: Callable[[Config], State]
    bottom: Callable[[Config], Sequence[str]]
    """All that a container lies on, as directories."""
    warn: Callable[[str], object]


# Taking


def take(taking: Taking, config: Config, name: str = "", comment: str = "") -> Snapshot:
    """Freeze what the container has written, running or not; `name`: snap0, snap1… unless given. Raises EngineError."""
    if name:
        _check_name(name)
    with alone(taking.store, config), kept(taking.store):
        taken = {snapshot.name for snapshot in all_of(taking.store, config)}
        if name in taken:
            raise EngineError(
                f'container "{config.name}" has a snapshot "{name}" already; choose another name, or: '
                f"minicontainer snapshot rm {config.name} {name}", 1
            )  # fmt: skip
        name = name or next(free for n in range(len(taken) + 1) if (free := f"snap{n}") not in taken)
        now = time.time()
        snapshot = Snapshot(name, freeze(taking, config), comment, now)
        with told(f'cannot write down the snapshot "{name}"'):
            files.replace(_record(taking.store, config, name), json.dumps(snapshot.asdict()))
    return snapshot


def freeze(taking: Taking, config: Config) -> tuple[str, ...]:
    """The layers that show what the container shows now, none of them written to any more. Raises EngineError.

    The caller is `alone` with the container, and keeps the layers from being swept until they are named somewhere.
    """
    store = taking.store
    state = taking.state(config)
    if state.status == "running":
        from minicontainer.engine.standstill import freeze_running

        return freeze_running(taking, store.config(config.id), state)
    with standing(taking, config):
        config = shortened(taking, store.config(config.id))
        layers = (new_layer(store), *config.layers)
        try:
            with told(f'cannot take a snapshot of container "{config.name}"'):
                as_owner(taking.steps, "freeze", store.root, config.id, layers)
        except BaseException:
            if layers[0] not in store.config(config.id).layers:
                store.clear(f"{store.layers}/{layers[0]}")
            raise
        return layers


def new_layer(store: Store) -> str:
    """The name of a frozen layer to be: STATE/layers/NAME is there, and `diff` is not yet. Raises EngineError."""
    layer = f"{FROZEN}{os.urandom(8).hex()}"
    with told(f"cannot make a layer below {store.layers}"):
        os.mkdir(f"{store.layers}/{layer}", 0o711)
    return layer


@contextlib.contextmanager
def standing(taking: Taking, config: Config) -> Iterator[None]:
    """While in the block, a container that does not run is not started. Raises EngineError."""
    with taking.store.claimed(config.id, patient=False) as ours:
        if not ours:
            raise EngineError(f'container "{config.name}" is just being started or removed by another process', 1)
        settle(taking.store, config, taking.steps)
        directory = taking.store.directory(config.id)
        for name in os.listdir(directory):
            if name.startswith("work."):  # of overlays that are gone, with the processes that they were under
                taking.store.clear(f"{directory}/{name}")
        yield


def shortened(taking: Taking, config: Config) -> Config:
    """The container on fewer layers, where they have become many: the upper half merged into one that shows the same.

    The layers that it was made of stay for the snapshots that name them.
    """
    frozen = [layer for layer in config.layers if layer.startswith(FROZEN)]
    if len(config.layers) < MOST_LAYERS or len(frozen) < 2:
        return config
    upper, rest = config.layers[: MOST_LAYERS // 2], config.layers[MOST_LAYERS // 2 :]
    if not all(layer.startswith(FROZEN) for layer in upper):
        upper, rest = tuple(frozen), config.layers[len(frozen) :]
    below = list(taking.bottom(config))[len(upper) :]
    merged = merge(taking, upper, below)
    return taking.store.relayer(config.id, (merged, *rest))


def merge(taking: Taking, layers: Sequence[str], below: Sequence[str]) -> str:
    """A new frozen layer that shows what these, the topmost first, show above the directories `below`. EngineError."""
    store = taking.store
    layer = new_layer(store)
    try:
        with told(f"cannot merge {len(layers)} layers"):
            as_owner(taking.steps, "merge", [store.layer(one) for one in layers], store.layer(layer), below)
    except BaseException:
        store.clear(f"{store.layers}/{layer}")
        raise
    return layer


# What there is


def all_of(store: Store, config: Config) -> list[Snapshot]:
    """A container's snapshots, the oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for file in _files(store, config):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(_read(f"{_records(store, config)}/{file}"))
    return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.name))


def find(store: Store, config: Config, name: str) -> Snapshot:
    """The snapshot with this name. Raises EngineError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if "/" not in name:
            return _read(_record(store, config, name))
    there = ", ".join(snapshot.name for snapshot in all_of(store, config)) or "none"
    raise EngineError(f'container "{config.name}" has no snapshot "{name}"; there is {there}', 1)


def directories(store: Store, snapshot: Snapshot) -> list[str]:
    """Where its layers are, the topmost first: what an image is to be made of."""
    return [store.layer(layer) for layer in snapshot.layers]


def clones(store: Store, config: Config) -> list[Config]:
    """The containers that were made of this one, or of a snapshot of it, and share its layers."""
    return [other for other in store.all() if other.origin.partition("/")[0] == config.id]


# Putting back


def restore(taking: Taking, config: Config, name: str) -> None:
    """Put a container back to what it was: what it has written since is thrown away. Raises EngineError."""
    store = taking.store
    snapshot = find(store, config, name)
    if taking.state(config).status == "running":
        raise EngineError(
            f'container "{config.name}" runs; stop it first: minicontainer stop {config.name}; or restore the snapshot '
            f"to a new one: minicontainer snapshot restore {config.name} {name} NEWNAME", 1
        )  # fmt: skip
    with alone(store, config), standing(taking, config), told(f'cannot restore container "{config.name}"'):
        snapshot = find(store, config, name)
        before = store.config(config.id).layers
        files.replace(_restoring(store, config), json.dumps(snapshot.layers))
        settle(store, config, taking.steps)
    sweep(store, before)


def settle(store: Store, config: Config, steps: Steps) -> bool:
    """Finish what `restore` has begun, if it has; by whoever watches over the container. OSError, EngineError."""
    try:
        layers = json.loads(files.read(_restoring(store, config)))
    except FileNotFoundError:
        return False
    as_owner(steps, "restore", [store.layer(layer) for layer in layers], f"{store.directory(config.id)}/upper")
    store.relayer(config.id, tuple(layers))
    os.unlink(_restoring(store, config))
    return True


# Clones


def clone(
    taking: Taking, source: Config, name: str = "", snapshot: str = "", *, full: bool = False, remove: bool = False
) -> Config:
    """A new container that begins as what `source`, or a snapshot of it, is; watched over by us. Raises EngineError.

    `full`: with a copy of what that has written, in place of sharing it; the image below stays shared. It is wanted as
    its source was, limits and all; but name, host name, addresses and fixed ports of the host are its own.
    """
    store, layers, shared = taking.store, tuple[str, ...](), False
    try:
        with alone(store, source), kept(store):
            if snapshot:
                layers = find(store, source, snapshot).layers
            elif full and taking.state(source).status != "running":
                with standing(taking, source):
                    return _add(taking, source, name, store.config(source.id).layers, "", True, remove, upper=True)
            else:
                layers = freeze(taking, source)
            origin = "" if full else f"{source.id}/{snapshot}".rstrip("/")
            made = _add(taking, source, name, layers, origin, full, remove)
            shared = not full
            return made
    finally:
        if layers and not shared:  # no clone has been made; or it has a copy of its own
            sweep(store, layers[:1])


def _add(
    taking: Taking, source: Config, name: str, layers: tuple[str, ...], origin: str, full: bool, remove: bool,
    *, upper: bool = False,
) -> Config:  # fmt: skip
    """The new container; `upper`: above these layers, its source has written something, too."""
    store = taking.store
    own = [store.layer(layer) for layer in layers if layer.startswith(FROZEN) or not full]
    if upper:
        own.insert(0, f"{store.directory(source.id)}/upper")
    below = list[str]()
    if full:
        layers = tuple(layer for layer in layers if not layer.startswith(FROZEN))
        below += taking.bottom(source.replace(layers=layers))
    made = f"{store.layers}/.{FROZEN}{os.urandom(8).hex()}"
    try:
        with told(f'cannot clone container "{source.name}"'):
            as_owner(taking.steps, "clone", own, made, full, below)
            return store.add(
                _anew(taking, source, name, layers, origin, remove),
                lambda place: as_owner(taking.steps, "rename", made, place),
            )
    except BaseException:
        store.clear(made)
        raise


def _anew(taking: Taking, source: Config, name: str, layers: tuple[str, ...], origin: str, remove: bool) -> Config:
    """What the clone is to be: all that two containers cannot both be is made anew."""
    fixed = [port for port in source.ports if port.host_port]
    if fixed:
        taking.warn(f'the clone publishes no port {", ".join(map(str, fixed))}: container "{source.name}" does; '
                    f"minicontainer update --publish gives it others")  # fmt: skip
    return source.replace(
        id="",
        name=name,
        hostname="",
        layers=layers,
        origin=origin,
        remove=remove,
        networks=tuple(one.replace(ip="", ip6="", mac="") for one in source.networks),
        ports=tuple(port for port in source.ports if not port.host_port),
        created=time.time(),
    )


# Removing


def remove(store: Store, config: Config, names: Sequence[str]) -> list[str]:
    """Forget snapshots of a container, `ALL` of them or those; what nobody else needs of them goes. Raises EngineError.

    All or nothing. Returns their names.
    """
    with alone(store, config):
        if list(names) == ["ALL"]:
            names = sorted(file.removesuffix(".json") for file in _files(store, config))
        found, unreadable = list[Snapshot](), False
        for name in names:
            try:
                found.append(find(store, config, name))
            except Unreadable:  # it can be given up all the same
                found.append(Snapshot(name, ()))
                unreadable = True
        for snapshot in found:
            if users := [one.name for one in clones(store, config) if one.origin == f"{config.id}/{snapshot.name}"]:
                raise EngineError(
                    f'snapshot "{snapshot.name}" of container "{config.name}" is the base of {", ".join(users)}; '
                    f"remove the clone first: minicontainer rm {' '.join(users)}", 1
                )  # fmt: skip
        for snapshot in found:
            with contextlib.suppress(FileNotFoundError):  # named twice
                os.unlink(_record(store, config, snapshot.name))
    sweep(store, None if unreadable else [layer for snapshot in found for layer in snapshot.layers])
    return [snapshot.name for snapshot in found]


def refuse_base(store: Store, config: Config, with_snapshots: bool) -> None:
    """Raises EngineError: clones lie on the container; or snapshots of it would go as well, and that was not said."""
    if not os.path.isdir(_records(store, config)):  # neither has ever been made
        return
    if users := [one.name for one in clones(store, config)]:
        raise EngineError(
            f'container "{config.name}" is the base of {", ".join(users)}; remove the clone first: '
            f"minicontainer rm {' '.join(users)}", 1
        )  # fmt: skip
    if not with_snapshots and (there := [one.name for one in all_of(store, config)]):
        raise EngineError(
            f'container "{config.name}" has snapshots: {", ".join(there)}; remove them with it: '
            f"minicontainer rm --snapshots {config.name}", 1
        )  # fmt: skip


def named_by(store: Store, config: Config) -> set[str]:
    """The frozen layers that a container and its snapshots name: what may be left over when it goes."""
    if not (os.path.isdir(_records(store, config)) or any(layer.startswith(FROZEN) for layer in config.layers)):
        return set()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        config = store.config(config.id)
    names = {*config.layers, *(layer for snapshot in all_of(store, config) for layer in snapshot.layers)}
    return {name for name in names if name.startswith(FROZEN)}


def in_use(store: Store) -> set[str]:
    """The layers that any container or any snapshot names, or is about to. An image's layers have other users, too.

    Raises OSError, ValueError, TypeError, KeyError: what a snapshot names cannot be read.
    """
    used = set[str]()
    for container_id in store.ids():
        directory = store.directory(container_id)
        try:
            used.update(json.loads(files.read(f"{directory}/config.json")).get("layers", ()))
        except (OSError, ValueError, AttributeError):  # half made or half removed: it names nothing
            continue
        with contextlib.suppress(FileNotFoundError):
            used.update(json.loads(files.read(f"{directory}/restoring")))
        with contextlib.suppress(FileNotFoundError):
            for file in os.listdir(f"{directory}/snapshots"):
                if file.endswith(".json"):
                    with contextlib.suppress(FileNotFoundError):
                        used.update(json.loads(files.read(f"{directory}/snapshots/{file}"))["layers"])
    return used


def sweep(store: Store, names: Collection[str] | None = None) -> list[str]:
    """Remove the frozen layers, all or those of these names, that nobody names. Returns which.

    None, while it cannot be read what a snapshot names: what it stands on might be among them.
    """
    removed = list[str]()
    if store.unswept is not None:  # we would wait for ourselves
        store.unswept.update(names or ())
        return removed
    with _lock(f"{store.layers}/lock", fcntl.LOCK_EX):
        there = os.listdir(store.layers)
        try:
            used = in_use(store)
        except (OSError, ValueError, TypeError, KeyError):
            return removed
        left = {name for name in there if name.lstrip(".").startswith(FROZEN)} - used
        for name in sorted(left if names is None else left.intersection(names)):
            store.clear(f"{store.layers}/{name}")
            removed.append(name)
    return removed


# Locks and files


@contextlib.contextmanager
def alone(store: Store, config: Config) -> Iterator[None]:
    """While in the block nobody else takes, restores, removes snapshots of this container. Raises EngineError."""
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.mkdir(_records(store, config))
    try:
        lock = _lock(_records(store, config), fcntl.LOCK_EX, os.O_RDONLY | os.O_DIRECTORY)
        with lock:
            if not store.is_there(config):
                raise FileNotFoundError
            yield
    except FileNotFoundError:
        if store.is_there(config):
            raise
        raise EngineError(f'container "{config.name}" has just been removed', 1) from None


@contextlib.contextmanager
def kept(store: Store) -> Iterator[None]:
    """While in the block no layer is swept; by us, afterwards."""
    with _lock(f"{store.layers}/lock", fcntl.LOCK_SH):
        store.unswept = set()
        try:
            yield
        finally:
            later, store.unswept = store.unswept, None
    if later:
        sweep(store, later)


@contextlib.contextmanager
def _lock(path: str, how: int, flags: int = os.O_CREAT | os.O_RDWR) -> Iterator[None]:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _records(store: Store, config: Config) -> str:
    return f"{store.directory(config.id)}/snapshots"


def _record(store: Store, config: Config, name: str) -> str:
    return f"{_records(store, config)}/{name}.json"


def _files(store: Store, config: Config) -> list[str]:
    return [file for file in os.listdir(_records(store, config)) if file.endswith(".json")]


def _restoring(store: Store, config: Config) -> str:
    return f"{store.directory(config.id)}/restoring"


def _read(file: str) -> Snapshot:
    try:
        data = json.loads(files.read(file))
        return Snapshot(**{**data, "layers": tuple(data["layers"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(
            f"{file} is damaged ({error}), so it is not known what the snapshot is made of; "
            f"to give it up: minicontainer snapshot rm CONTAINER {os.path.basename(file).removesuffix('.json')}"
        ) from None


def _check_name(name: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    if not set(name) <= allowed or name[0] in ".-" or len(name) > 200 or name == "ALL":
        raise EngineError(
            f'"{name}" cannot be the name of a snapshot: letters, digits, "_", "." and "-", not one of ".-" first, at '
            f"most 200, and not ALL, which are all of them"
        )


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """What the kernel refuses, in one line; and what a step of somebody else's did that is no good."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(f"{what}: {error.strerror or error}") from None
    except RecursionError:
        raise EngineError(f"{what}: {TOO_DEEP}") from None
    except Exception as error:
        from minicontainer.runtime.failure import describe, explain

        raise EngineError(f"{what}: {explain(describe(error))}") from None


# As whom


def acts(steps: Steps) -> dict[str, Callable[..., object]]:
    """What may have to be done as a container's root, for it is about files of the container's other users."""

    def freeze(root: str, container_id: str, layers: Sequence[str]) -> None:
        store = Store(root)
        upper = f"{store.directory(container_id)}/upper"
        steps.take(upper, store.layer(layers[0]), lambda: store.relayer(container_id, tuple(layers)))

    def copy(source: str, target: str) -> None:
        os.mkdir(target, 0o700)
        fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (source, target)]
        try:
            steps.copy_tree(*fds)
        finally:
            for fd in fds:
                os.close(fd)

    return {
        "freeze": freeze,
        "copy": copy,
        "merge": steps.merge,
        "restore": steps.restore,
        "clone": steps.clone,
        "rename": os.rename,
    }


def as_owner(steps: Steps, act: str, *arguments: Any) -> None:
    """Do one of them; where an ordinary user may not, as root of the user namespace that his containers have."""
    try:
        if act == "freeze" and _belongs_to_another(f"{Store(arguments[0]).directory(arguments[1])}/upper"):
            raise PermissionError
        acts(steps)[act](*arguments)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        import shutil

        from minicontainer.engine.removal import act_as_container_root

        if act in ("copy", "merge", "clone"):  # what was made of the new directory, by us
            shutil.rmtree(arguments[1], ignore_errors=True)
        act_as_container_root(act, *arguments)


def _belongs_to_another(directory: str) -> bool:
    """Whether an ordinary user may not give it another place: ".." in it would have to change. rename(2), EACCES."""
    about = os.stat(directory)
    return os.geteuid() != 0 and (about.st_uid != os.geteuid() or about.st_mode & 0o300 != 0o300)
