"""The container's tree of files, built by init in its own mount namespace while the host's is still in sight.

OCI runtime specification, config.md ("Root", "Mounts") and config-linux.md ("Default Filesystems", "Devices").
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from minicontainer.linux import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_UNBINDABLE,
    Namespace,
    in_user_namespace,
    target_in,
)
from minicontainer.runtime.mount_options import PROPAGATIONS, MountOptions, parse_options
from minicontainer.runtime.spec import MANAGED, Directory, Mount, Overlay, Spec
from minicontainer.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.steps.nodes import Device as Node
    from minicontainer.steps.user import IdMap


def take_sources(spec: Spec, steps: Steps) -> list[int]:
    """The root, where owners in it are shown through maps. One for each bind mount, in their order: where a source is
    wanted at two places, it is taken twice. Then one for each device, where the container's root may not make them.

    By whoever has the host's rights; an idmapped mount gets its maps here too, for which they are needed.
    """
    taken: list[int] = []
    try:
        match spec.root:
            case Overlay(lowers, upper, work, mapped=True):
                taken.append(steps.stack_mapped(lowers, upper, work, spec.uid_mappings, spec.gid_mappings))
        for mount in spec.mounts:
            options = parse_options(mount.options or ())
            if _is_bind(mount, options):
                alone = mount.options is not None and not options.flags & MS_REC
                taken.append(steps.pick_up(mount.source, False) if alone else steps.pick_up(mount.source))
                if mount.uid_mappings or options.idmap:
                    maps = _maps(mount, spec)
                    steps.map_ids(taken[-1], *maps, options.idmap_below)
        if spec.devices and Namespace.USER in spec.namespaces and not in_user_namespace():
            taken += steps.bring_nodes(_nodes(spec), spec.uid_mappings, spec.gid_mappings)
    except BaseException:
        for source in taken:
            os.close(source)
        raise
    return taken


def _nodes(spec: Spec) -> list[Node]:
    """But not ptmx: that is a link to the one of the container's own devpts, whatever a configuration believes."""
    nodes = [one for one in spec.devices if os.path.normpath(one.path) != "/dev/ptmx"]
    return [(one.type, one.path, one.major, one.minor, one.file_mode, one.uid, one.gid) for one in nodes]


def show_root(spec: Spec, steps: Steps, sources: list[int]) -> str:
    """Put the root file system in its place, in our own mount namespace only; returns the place.

    One that was made outside is the first of `sources`, and leaves them.
    """
    match spec.root:
        case Directory(path):
            return path
        case Overlay(mapped=True):
            made = sources.pop(0)
            steps.place(made, "/", "tmp")  # its users may go there, and perhaps not where the layers are
            os.close(made)
            return "/tmp"
        case Overlay(lowers, upper, work, merged):
            steps.stack(lowers, upper, work, merged)
            return merged
        case scratch:
            steps.attach(scratch.path, "/", "tmpfs", "root", data=f"mode=755,size={scratch.size}")
            return scratch.path


def furnish(spec: Spec, root: str, steps: Steps, sources: Sequence[int]) -> None:
    """Mount below `root` what the specification asks for, and see to /dev."""
    if spec.default_filesystems:
        steps.mount_proc_and_dev(root)
    taken = iter(sources)
    for mount in spec.mounts:
        mount_in(mount, root, steps, taken, Namespace.CGROUP in spec.namespaces)
    if not spec.default_filesystems and any(mount.destination.strip("/") == "dev" for mount in spec.mounts):
        steps.furnish_dev(root)
    if spec.devices:
        steps.make_nodes(root, _nodes(spec), list(taken))
    if spec.makes_cwd or not spec.default_filesystems:  # an image's, which may not be there; others make it as well
        with contextlib.suppress(OSError), target_in(root, spec.process.cwd):
            pass
    if spec.process.terminal and not spec.default_filesystems:  # its place, as long as /dev can be written to
        with contextlib.suppress(OSError), target_in(root, "dev/console", directory=False):
            pass
    for mount in spec.mounts:
        if mount.type == "tmpfs" and mount.options and parse_options(mount.options).flags & MS_RDONLY:
            steps.remount(root, mount.destination, MS_BIND | MS_RDONLY)


def enter(spec: Spec, root: str, steps: Steps) -> None:
    """Make `root` our "/"; afterwards nothing of the host's tree can be reached."""
    if Namespace.MOUNT not in spec.namespaces:
        steps.enter_chroot(root)
    elif spec.no_pivot:
        steps.move_root(root)
    else:
        steps.pivot(root)


def covers(spec: Spec) -> list[str]:
    """The steps that `cover` will take, in their order: on a root that is unbindable, nothing can be bound any more."""
    if Namespace.MOUNT not in spec.namespaces:
        return []  # they would be covered for everybody
    wanted = {
        "protect_paths": spec.readonly_paths,
        "mask_paths": spec.masked_paths,
        "protect_root": spec.root_readonly,
        "spread_root": spec.rootfs_propagation
        or _unbindable(spec),  # last: nothing can be bound any more on a root that is unbindable
    }
    return [step for step, wish in wanted.items() if wish]


def cover(spec: Spec, steps: Steps) -> None:
    """Inside, and last: what shall not be written to, and what shall not be seen."""
    for step in covers(spec):
        match step:
            case "spread_root":
                for path, propagation in _unbindable(spec):
                    steps.spread_root(propagation, path)
                if spec.rootfs_propagation:
                    steps.spread_root(PROPAGATIONS[spec.rootfs_propagation])
            case "protect_root":
                steps.protect_root()
            case "protect_paths":
                steps.protect_paths(spec.readonly_paths)
            case "mask_paths":
                steps.mask_paths(spec.masked_paths)


def mount_in(mount: Mount, root: str, steps: Steps, taken: Iterator[int], own_cgroups: bool) -> None:
    """Mount one thing below `root`; of a bind mount the source is the next of `taken`. Raises OSError, ValueError."""
    options = parse_options(mount.options or ())
    flags, destination = options.flags & ~(MS_BIND | MS_REC), f"/{mount.destination.strip('/')}"
    if options.flags & MS_REMOUNT:
        steps.remount(root, destination, options.flags & ~MS_REMOUNT, options.cleared, options.data)
    elif _is_bind(mount, options):
        source = next(taken)
        propagation = [one for one in options.propagation if not one & MS_UNBINDABLE]
        steps.bind(
            source,
            root,
            destination,
            mount.options is None and mount.readonly,
            flags,
            options.cleared,
            options.below,
            propagation,
        )
    elif mount.type in ("cgroup", "cgroup2"):
        readonly = mount.readonly or bool(flags & MS_RDONLY)
        managed = (True, True) if mount.data == MANAGED else ()
        steps.mount_cgroups(root, destination, readonly, *(managed if own_cgroups else (False,)))
    else:
        if mount.options is None:
            flags = MS_NOSUID | MS_NODEV | (MS_NOEXEC if mount.type != "tmpfs" else 0)
            flags |= MS_RDONLY if mount.readonly else 0
        elif mount.type == "tmpfs":
            flags &= ~MS_RDONLY  # when everything has its place in there
        data = mount.data or options.data or None
        steps.attach(
            root, destination, mount.type, mount.source or mount.type, flags, data, options.below, options.propagation,
            options.copy_up,
        )  # fmt: skip


def _unbindable(spec: Spec) -> list[tuple[str, int]]:
    """The mounts that nobody shall bind, and how far down: made so only when we have bound them for the last time."""
    wishes = [(mount.destination, parse_options(mount.options or ()).propagation) for mount in spec.mounts]
    return [(path, one) for path, propagation in wishes for one in propagation if one & MS_UNBINDABLE]


def _maps(mount: Mount, spec: Spec) -> tuple[Sequence[IdMap], Sequence[IdMap]]:
    """The mount's own maps, or those of the container. Raises OSError: there are none."""
    owner = mount if mount.uid_mappings else spec
    uids, gids = owner.uid_mappings, owner.gid_mappings
    if not uids or not gids:
        raise OSError(errno.EINVAL, f"{mount.destination}: idmap takes maps, its own or those of the container")
    return uids, gids


def _is_bind(mount: Mount, options: MountOptions) -> bool:
    return (mount.type == "bind" or options.bind) and not options.flags & MS_REMOUNT
