"""What is mounted in a container beside its own file systems: directories of the host, volumes, file systems in memory.

A wish is (type, source, destination, options): type "bind", "volume" or "tmpfs"; source a path, a volume's name or "";
options in the words of mount(8) and the OCI specification, and these of ours: "nocopy" and "anonymous" of a volume,
"idmap=uids=DISK-SEEN-COUNT…;gids=…", as podman writes it. Imported only for a container that has such wishes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.inside import do, import_nothing, join_as_root
from minicontainer.engine.store import Config, State, Store
from minicontainer.engine.volumes import Volumes, check_name, new_name
from minicontainer.linux import Namespace, birth_of, in_user_namespace
from minicontainer.runtime import rootfs
from minicontainer.runtime.mount_options import KNOWN
from minicontainer.runtime.spec import Directory, Mount, Process, Spec
from minicontainer.steps import Steps
from minicontainer.steps.user import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.snapshots import Taking

Wish = tuple[str, str, str, tuple[str, ...]]
"""(type, source, destination, options)."""

_OURS = ("nocopy", "anonymous")


def wanted(config: Config) -> Config:
    """The container with the volumes that its image asks for, and names for those that nobody has named."""
    taken = {_normal(destination) for _, destination, _ in config.volumes}
    taken |= {_normal(destination) for _, _, destination, _ in config.mounts}
    images = [path for path in config.image_volumes if _normal(path) not in taken]
    wishes = [*config.mounts, *(("volume", "", _normal(path), ()) for path in dict.fromkeys(images))]
    return config.replace(mounts=tuple(map(_named, wishes)))


def _named(wish: Wish) -> Wish:
    kind, source, destination, options = wish
    if kind != "volume" or source:
        return wish
    return kind, new_name(), destination, (*options, "anonymous")


def check(config: Config) -> None:
    """Refuse what cannot be, before anything is made. Raises EngineError."""
    places = [_normal(destination) for _, destination, _ in config.volumes]
    for wish in config.mounts:
        check_wish(wish)
        places.append(_normal(wish[2]))
    for place in places:
        if places.count(place) > 1:
            raise EngineError(f"two things are to be mounted at {place}: leave out one of them")


def check_wish(wish: Wish) -> None:
    """Likewise, of one. Raises EngineError."""
    kind, source, destination, options = wish
    if not destination.startswith("/") or _normal(destination) == "/":
        raise EngineError(f'nothing can be mounted at "{destination}": write a path below /, such as /data')
    if kind == "bind" and not os.path.exists(source):
        raise EngineError(f"nothing to mount at {source}: it is not there")
    if kind == "volume" and source:
        check_name(source)
    if kind != "tmpfs":
        for option in options:
            if option not in KNOWN and option not in _OURS and not option.startswith("idmap="):
                raise EngineError(
                    f'{destination}: a {kind} has no option "{option}"; those that it has are in mount(8)'
                )
        _maps(options, destination)


def mounts_of(store: Store, config: Config) -> list[Mount]:
    """As the runtime takes them, those of the host's directories (`config.volumes`) among them: what is mounted nearer
    to the root first, so that nothing covers what lies below it."""
    found = [Mount(destination, "bind", source, readonly) for source, destination, readonly in config.volumes]
    found += [mount_of(store, config, wish) for wish in config.mounts]
    return sorted(found, key=lambda mount: _normal(mount.destination).count("/"))


def mount_of(store: Store, config: Config, wish: Wish) -> Mount:
    """One of them. A volume shows its files to a container with users of its own as they are for it."""
    kind, source, destination, options = wish
    if kind == "tmpfs":
        return Mount(destination, "tmpfs", "tmpfs", options=options)
    uids, gids = _maps(options, destination)
    if not uids and (kind == "volume" or "idmap" in options):
        uids, gids = [*config.uid_maps], [*config.gid_maps]
    words = [word for word in options if word not in _OURS and not word.startswith("idmap")]
    how = [] if {"bind", "rbind"} & {*words} else ["rbind"]
    source = Volumes(store).data(source) if kind == "volume" else source
    return Mount(destination, "bind", source, options=(*how, *words), uid_mappings=uids, gid_mappings=gids)


def seen(store: Store, config: Config) -> tuple[tuple[str, str, bool], ...]:
    """(directory of the host, destination, read-only) of all that outlives the container, for who copies in and out."""
    kept = [
        (Volumes(store).data(source) if kind == "volume" else source, destination, bool({"ro", "rro"} & {*options}))
        for kind, source, destination, options in config.mounts
        if kind != "tmpfs"
    ]
    return (*config.volumes, *kept)


def provide(store: Store, config: Config, lowers: Sequence[str], steps: Steps) -> None:
    """Make a container's volumes, and fill them. Raises EngineError."""
    if any(kind == "volume" for kind, _, _, _ in config.mounts):
        Volumes(store).provide(config, lowers, steps)


def change(taking: Taking, config: Config, add: Sequence[Wish], remove: Sequence[str]) -> Config:
    """Take away what is mounted at some places of a container, then mount other things: all of it, or none.

    At once if it runs, and for its next start. Raises EngineError: nothing of ours is there, it is in use…
    """
    store, state = taking.store, taking.state(config)
    kept = {_normal(wish[2]): wish for wish in config.mounts}
    plain = {_normal(place): (source, place, readonly) for source, place, readonly in config.volumes}
    before = {**kept, **{place: ("bind", one[0], one[1], ("rro",) if one[2] else ()) for place, one in plain.items()}}
    gone = [_normal(place) for place in remove]
    for place in gone:
        if place not in before:
            there = ", ".join(before) or "nothing is"
            raise EngineError(
                f'nothing is mounted at {place} of container "{config.name}" that you asked for: {there}', 1
            )
    new = config.replace(
        volumes=tuple(one for place, one in plain.items() if place not in gone),
        mounts=(*(wish for place, wish in kept.items() if place not in gone), *map(_named, add)),
    )
    check(new)
    provide(store, new, taking.bottom(config), taking.steps)
    undo = list[tuple[Callable[..., None], Mount]]()
    try:
        if state.status == "running":
            where = _Inside(config, state, taking.steps)
            for place in gone:
                mount = mount_of(store, config, before[place])
                where.unmount(mount)
                undo.append((where.mount, mount))
            for wish in new.mounts[len(new.mounts) - len(add) :]:
                mount = mount_of(store, config, wish)
                where.mount(mount)
                undo.append((where.unmount, mount))
        store.change(new)
    except BaseException:
        for act, mount in reversed(undo):
            with contextlib.suppress(EngineError):
                act(mount)
        raise
    return new


class _Inside:
    """The mount namespace of a container that runs: a child of ours goes in, with what it is to mount in its hands."""

    def __init__(self, config: Config, state: State, steps: Steps) -> None:
        self._config, self._state, self._steps = config, state, steps

    def mount(self, mount: Mount) -> None:
        """Raises EngineError."""
        steps = self._steps
        spec = Spec(self._config.id, Directory("/"), Process(()), "", mounts=[mount])

        def act() -> None:
            _ = steps.bind, steps.attach, steps.copy_tree, steps.unmount  # loaded while it is still ours that is loaded
            taken = self._go_in(lambda: rootfs.take_sources(spec, steps))
            rootfs.mount_in(mount, "/", steps, iter(taken), own_cgroups=True)

        self._do(act, f"cannot mount {mount.source or mount.type} at {mount.destination}")

    def unmount(self, mount: Mount) -> None:
        """Raises EngineError: it is in use."""
        steps = self._steps

        def act() -> None:
            _ = steps.unmount
            self._go_in(list)
            try:
                steps.unmount(mount.destination)
            except OSError as error:
                if error.errno != errno.EINVAL:  # its own root has done so already
                    raise

        self._do(act, f"cannot take away what is mounted at {mount.destination}")

    def _go_in(self, take: Callable[[], list[int]]) -> list[int]:
        """Be root in the container, among its mounts, with what is to be mounted: an ordinary user may take that only
        as root among the container's users, in a copy of the host's mounts; root takes it before."""
        pid, steps = self._state.pid or 0, self._steps
        if birth_of(pid) != self._state.started:
            raise ProcessLookupError(errno.ESRCH, "it has just ended")
        _ = steps.join, steps.pick_up, steps.map_ids, steps.make_private, steps.become_user
        steps.hide_process()
        users = [Namespace.USER] if Namespace.USER.link(pid) != Namespace.USER.link() else []
        if os.geteuid() == 0 and not in_user_namespace():
            taken = take()
            import_nothing()
            join_as_root(steps, pid, [*users, Namespace.MOUNT])
            return taken
        if users:
            join_as_root(steps, pid, users)
            steps.make_private()
        taken = take()
        import_nothing()
        steps.join(pid, [Namespace.MOUNT])
        return taken

    def _do(self, act: Callable[[], None], what: str) -> None:
        try:
            do(self._steps, act)
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno == errno.EBUSY:
                why = "a program in there uses it, or something is mounted below it; end that first"
            raise EngineError(f'container "{self._config.name}": {what}: {why}', 1) from None


def _maps(options: Sequence[str], destination: str) -> tuple[list[IdMap], list[IdMap]]:
    """What "idmap=…" says, as (id on disk, id to be seen, how many). Raises EngineError.

    Without maps of its own an idmapped mount shows owners as the container's user namespace does, where it has one; and
    an ordinary user may not.
    """
    text = next((one for one in options if one == "idmap" or one.startswith("idmap=")), None)
    if text is None:
        return [], []
    if os.geteuid() != 0:
        raise EngineError(
            f"{destination}: idmap needs root: the kernel shows a file system through maps for its owner only; "
            f"leave it out: your own files are root's in there"
        )
    if text == "idmap":
        return [], []
    maps: dict[str, list[IdMap]] = {"uids": [], "gids": []}
    try:
        for part in text.removeprefix("idmap=").split(";"):
            name, _, ranges = part.partition("=")
            for one in ranges.split("#"):
                disk, visible, count = map(int, one.removeprefix("@").split("-"))
                maps[name].append((disk, visible, count))
    except (ValueError, KeyError):
        maps = {}
    if not all(maps.get(name) for name in ("uids", "gids")):
        raise EngineError(
            f'{destination}: cannot understand "{text}": write idmap=uids=DISK-SEEN-COUNT;gids=DISK-SEEN-COUNT, '
            f"several with # between them"
        )
    return maps["uids"], maps["gids"]


def _normal(path: str) -> str:
    return os.path.normpath(f"/{path.lstrip('/')}")
