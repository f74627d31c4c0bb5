"""Lab 14, snapshots: the trees on disk before and after, by their inodes too, and what an overlay shows of them.

That nothing is copied is not measured by a clock here: a file that was copied has another inode number.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labs.grading.checks import Wrong, check
from labs.grading.observed_trees import DIRECTORY, FILE, OPAQUE, WHITEOUT, File, Tree, difference, plant, seen, told
from labs.grading.subject import Subject

# take


@check("What was written is the snapshot, and above it nothing", exercise="snapshot.take", points=2)
def test_taken(subject: Subject) -> None:
    """overlayfs.rst, "Upper and Lower"; ls -lAn of both directories"""
    container = Container(subject)
    before, shown = seen(subject.sandbox, container.upper), container.shown([container.image])
    layer = f"{container.where}/layer"
    subject.perform("snapshot.take", container.upper, layer)
    after = _there(subject, container.upper, "the upper directory")
    kept = _there(subject, layer, "the layer")
    subject.saw(f"upper had {told(before)}; afterwards: the layer {told(kept)}; upper {told(after)}")
    if len(kept) == 1 and not difference(before, after, ["content"]):
        raise Wrong("upper is as it was, and the layer is empty: nothing was taken")
    if len(after) > 1:
        raise Wrong(
            f"upper still has {told(after)}: whatever the container changes of these is changed in the upper directory, and "
            f"what it has not changed lies there twice. After a snapshot the container goes on with an empty one"
        )
    if wrong := difference(before, kept):
        raise Wrong(f"the layer is not what upper was: {wrong}")
    again = container.shown([layer, container.image])
    if wrong := difference(_below(shown), _below(again)):
        raise Wrong(f"the container sees something else than before: {wrong}")


@check("Nothing of it was copied", exercise="snapshot.take", points=1)
def test_nothing_copied(subject: Subject) -> None:
    """rename(2), renameat2(2); ls -i: what was moved has the inode that it had, a copy has another"""
    container = Container(subject)
    before, layer = seen(subject.sandbox, container.upper), f"{container.where}/layer"
    subject.perform("snapshot.take", container.upper, layer)
    kept = _there(subject, layer, "the layer")
    new = [path for path in kept if path in before and kept[path].number != before[path].number]
    subject.saw(f"of {len(before)} inodes in upper, {len(kept) - len(new)} are those in the layer")
    if difference(before, kept, ["content"]):
        raise Wrong("not all of it is there: that nothing was copied is no merit then")
    if [path for path in new if before[path].kind == FILE]:
        raise Wrong(
            f"{new[-1]} is another file, with inode {kept[new[-1]].number[1]} instead of {before[new[-1]].number[1]}: it was "
            f"copied, as all of them were. That takes as long as the container has written much, and twice the room. A "
            f"directory can be given another name, with all that is in it, in one system call"
        )
    if new:
        raise Wrong(
            f"the files were moved, each by itself, into new directories ({new[0]}): that is a system call for each of them, "
            f"and whoever is killed in the middle has half of them here and half of them there. Move the directory itself"
        )


@check('"/" of the container is as it was', exercise="snapshot.take", points=1)
def test_top(subject: Subject) -> None:
    """overlayfs.rst: of a merged directory, mode, owner and attributes are the upper one's; stat(1) on the directory"""
    container = Container(subject)
    before, layer = seen(subject.sandbox, container.upper)["."], f"{container.where}/layer"
    subject.perform([("os.umask", [0o077]), ("snapshot.take", [container.upper, layer])])
    found = _there(subject, container.upper, "the upper directory")
    after = found["."]
    subject.saw(f"upper: {_look(before)}; the new one: {_look(after)}")
    if len(found) > 1:
        raise Wrong("upper still has what was written: that the directory is as it was is no merit then")
    _same_top(before, after, "the new upper directory")


@check("Whoever is killed in the midst of it has lost nothing", exercise="snapshot.take", points=1)
def test_killed(subject: Subject) -> None:
    """rename(2): "there will be no point at which another process … will find it missing"; the order of the three acts"""
    container = Container(subject)
    before, layer = seen(subject.sandbox, container.upper), f"{container.where}/layer"
    try:
        subject.perform("snapshot.take", container.upper, layer, {"dies": True})
    except Wrong as complaint:
        if "SIGKILL" not in str(complaint):
            raise
    else:
        raise Wrong(
            "remember() was not called: nobody has written down that the container lies on one more layer, and after the "
            "snapshot all that it had written is gone from its sight"
        )
    subject.saw("remember() has killed the process, and so it is when the power goes off at that moment")
    after = _there(subject, container.upper, "the upper directory")
    if wrong := difference(before, after, ["content"]):
        raise Wrong(
            f"at the moment when it is written down that the container lies on one more layer, upper is not what it was "
            f"any more ({wrong}): killed before that, the container would be without its files. First write it down, then "
            f"move"
        )
    found = _there(subject, layer, "the layer")
    subject.saw(f"upper has {told(after)}, the layer {told(found)}")
    if len(found) > 1:
        raise Wrong(f"the layer has {told(found)} already, while upper has it too: it was copied")


# restore


@check("It is again what it was", exercise="snapshot.restore", points=2)
def test_restored(subject: Subject) -> None:
    """overlayfs.rst; the tree that the overlay shows, by mode, owner, time, content, compared with the one of then"""
    container = Container(subject)
    layers = [f"{container.where}/layer", container.image]
    container.plant("layer", WRITTEN)
    shown = container.shown(layers, container.empty_like_layer())
    container.spoil()
    dirty = container.shown(layers)
    subject.perform([("os.umask", [0o077]), ("snapshot.restore", [layers, container.upper])])
    after = _there(subject, container.upper, "the upper directory")
    subject.saw(f"before restore it showed {told(dirty)}; upper afterwards: {told(after)}")
    newer = sorted(after.keys() - {"."})
    if newer and all(path in container.spoilt for path in newer):
        raise Wrong(
            f"upper still has {', '.join(newer[:4])}, from after the snapshot: what is in upper is seen before all "
            f"layers. A whiteout (a file that was removed) and an opaque mark are of it as well"
        )
    if newer:
        raise Wrong(
            f"upper has {', '.join(newer[:4])}, which lie in the layer below too: they were copied. Restoring has nothing to "
            f"bring back: the layer is there, unchanged, and is seen as soon as nothing lies over it"
        )
    _same_top(seen(subject.sandbox, layers[0])["."], after["."], "upper")
    if wrong := difference(shown, container.shown(layers)):
        raise Wrong(f"the container sees something else than when the snapshot was taken: {wrong}")


@check("The snapshot stays, to be restored once more", exercise="snapshot.restore", points=1)
def test_snapshot_stays(subject: Subject) -> None:
    """the layers are read-only: other containers may lie on them"""
    container = Container(subject)
    layers = [f"{container.where}/layer", container.image]
    container.plant("layer", WRITTEN)
    container.spoil()
    before = {path: seen(subject.sandbox, path) for path in layers}
    subject.perform("snapshot.restore", layers, container.upper)
    for path in layers:
        after = _there(subject, path, "a layer that was to be restored")
        subject.saw(f"{path.rpartition('/')[2]}: {told(before[path])}; afterwards {told(after)}")
        if wrong := difference(before[path], after):
            raise Wrong(
                f"the layer that was restored has changed: {wrong}. It is moved or emptied once, and then there is no "
                f"second time; and a clone that lies on it has lost its files"
            )
        moved = [name for name in after if after[name].number != before[path][name].number]
        if moved:
            raise Wrong(
                f"{moved[0]} in the layer is another file than before: the layer was made anew, and not left alone"
            )
    if seen(subject.sandbox, container.upper).keys() >= container.spoilt:
        raise Wrong("nothing was restored at all: that the snapshot is as it was is no merit then")


# clone


@check("A clone lies on the same layers, and shares nothing that can be written", exercise="snapshot.clone", points=1)
def test_cloned(subject: Subject) -> None:
    """overlayfs.rst, "Sharing and copying layers": lower layers may be shared, an upper one must not"""
    container = Container(subject)
    layers = [f"{container.where}/layer", container.image]
    container.plant("layer", WRITTEN)
    before = {path: seen(subject.sandbox, path) for path in layers}
    new = f"{container.where}/clone"
    subject.perform([("os.umask", [0o077]), ("snapshot.clone", [layers, new])])
    found = _there(subject, new, "the clone's upper directory", follow=True)
    subject.saw(f"the clone's upper directory: {told(found)}; {_look(found['.'])}")
    if any(found["."].number == tree["."].number for tree in before.values()):
        raise Wrong(
            "the clone's upper directory is one of the layers: what the clone writes, every container on that layer sees"
        )
    if subject.sandbox.stat(new, follow=False).st_ino != found["."].number[1]:
        raise Wrong("the clone's upper directory is a link to somebody else's: what the clone writes, they see")
    if len(found) > 1:
        raise Wrong(
            f"the clone's upper directory has {told(found)}: it lies over the same layers, where all of this is seen "
            f"already. An empty one will do, however large the image is"
        )
    _same_top(before[layers[0]]["."], found["."], "the clone's upper directory")
    if any(difference(tree, seen(subject.sandbox, path)) for path, tree in before.items()):
        raise Wrong("the layers have changed, and other containers lie on them")


@check("A full clone has it all, for itself", exercise="snapshot.clone", points=1)
def test_full_clone(subject: Subject) -> None:
    """overlayfs.rst: which layer's file is seen; ls -i: a hard link is no copy"""
    container = Container(subject)
    layers = [f"{container.where}/{name}" for name in ("layer", "older")]
    container.plant("layer", WRITTEN)
    older = {"changed": File(content=b"older"), "kept": File(content=b"older"), "image-file": File(content=b"older")}
    container.plant("older", older)
    numbers = {file.number for path in layers for file in seen(subject.sandbox, path).values()}
    shown = container.shown([*layers, container.image], container.empty_like_layer())
    new = f"{container.where}/clone"
    subject.perform("snapshot.clone", layers, new, True, [container.image])
    found = _there(subject, new, "the clone's upper directory")
    subject.saw(f"full clone of {told(seen(subject.sandbox, layers[0]))} over {told(older)}: {told(found)}")
    if len(found) == 1:
        raise Wrong("the full clone is empty: without the layers of its source it would have nothing but the image")
    if any(file.number in numbers for file in found.values()):
        raise Wrong(
            "a file of the full clone has the inode of one in the source's layers, so it is the same file: a change in the "
            "clone would be a change in the layer (cp -l makes links, not copies)"
        )
    again = container.shown([container.image], new)
    if wrong := difference(shown, again, ["content", "mode", "owner"]):
        raise Wrong(
            f"over {container.image.rpartition('/')[2]} alone, the full clone does not show what its source does: {wrong}. Of "
            f"two layers with the same name in them, the topmost one is seen, and what it hides stays hidden"
        )


# What the checks are made of

WRITTEN: Tree = {
    "changed": File(content=b"by the container", mode=0o640),
    "dir": File(DIRECTORY, mode=0o750),
    "dir/new": File(content=b"new", mode=0o4755),
    "dir/name": File(same_as="dir/new"),
    "image-file": File(WHITEOUT),
    "opaque": File(DIRECTORY, mode=0o755, xattrs={OPAQUE: b"y"}),
    "opaque/own": File(),
}
IMAGE: Tree = {
    "changed": File(content=b"of the image"),
    "image-file": File(),
    "left-alone": File(content=b"of the image"),
    "opaque": File(DIRECTORY, mode=0o755),
    "opaque/below": File(),
}


@dataclass
class Container:
    """A container's directories in the sandbox: an image, and an upper directory in which it has written."""

    subject: Subject

    def __post_init__(self) -> None:
        """Plant both."""
        self.where = self.subject.scratch()
        self.image, self.upper = f"{self.where}/image", f"{self.where}/upper"
        self.top = File(DIRECTORY, mode=0o751, modified=1_400_000_000 + secrets.randbelow(1 << 26), owner=self._owner())
        self.spoilt: set[str] = set()
        self.plant("image", IMAGE)
        self.plant("upper", {**WRITTEN, self.subject.name("word"): File(content=secrets.token_hex(4).encode())})

    def plant(self, name: str, tree: Mapping[str, File]) -> None:
        """Make a tree; "." is as the container's "/" is."""
        self.subject.perform(plant(f"{self.where}/{name}", {".": self.top, **tree}))

    def empty_like_layer(self) -> str:
        """An upper directory in which nothing has been written."""
        self.plant("nothing", {})
        return f"{self.where}/nothing"

    def spoil(self) -> None:
        """Let the container have an upper directory that is full of what it did after the snapshot."""
        self.subject.perform([("os.rename", [self.upper, f"{self.upper}.old"])])
        name = self.subject.name("later")
        later: Tree = {
            name: File(content=b"later"),
            "changed": File(content=b"later"),
            "left-alone": File(WHITEOUT),
            "dir": File(DIRECTORY, mode=0o700, xattrs={OPAQUE: b"y"}),
        }
        self.subject.perform(plant(self.upper, {".": File(DIRECTORY, mode=0o700), **later}))
        self.spoilt = set(later)

    def shown(self, layers: Sequence[str], upper: str = "") -> Tree:
        """What an overlay shows of these layers below `upper`; the kernel's word."""
        work = self.subject.scratch("work", "merged")
        options = ["lowerdir=" + ":".join([upper or self.upper, *layers]), "userxattr"]
        process = self.subject.perform(
            [
                ("mount.make_private", []),
                ("linux.mount", ["overlay", f"{work}/merged", "overlay", 0, ",".join(options)]),
            ]
        )
        return seen(process, f"{work}/merged")

    def _owner(self) -> tuple[int, int]:
        if sum(count for _, _, count in self.subject.sandbox.id_map("uid")) < 1 << 16:
            return 0, 0
        return secrets.randbelow(1000), secrets.randbelow(1000)


def _there(subject: Subject, path: str, what: str, follow: bool = False) -> Tree:
    try:
        subject.sandbox.stat(path, follow=follow)
        subject.sandbox.listdir(path)
    except OSError as error:
        raise Wrong(f"{what}, {path.rpartition('/')[2]}, is not there: {error.strerror}") from None
    return seen(subject.sandbox, f"{path}/." if follow else path)


def _below(tree: Tree) -> Tree:
    return {path: file for path, file in tree.items() if path != "."}


def _look(file: File) -> str:
    return f"mode {file.mode:04o}, owner {file.owner[0]}:{file.owner[1]}, inode {file.number[1]}"


def _same_top(wanted: File, found: File, what: str) -> None:
    """Raises Wrong: a directory has not the owner and mode that the container's "/" is to have."""
    for name in ("mode", "owner", "modified"):
        one, other = getattr(wanted, name), getattr(found, name)
        if one != other:
            shown = [f"{value:04o}" if name == "mode" else str(value) for value in (one, other)]
            raise Wrong(
                f'{what} should have {name} {shown[0]} and has {shown[1]}: of "/" the container sees what its upper '
                f"directory is like. With mode 0700, nobody in there but root can open any file; with another owner, root "
                f"can write to nothing. mkdir(2) knows neither: chown(2), chmod(2), utime(2) afterwards"
            )
