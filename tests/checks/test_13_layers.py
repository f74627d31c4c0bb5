"""Lab 13, layered images: the trees, the mounts and the archives that come of the submission's functions."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from labs.grading.checks import Wrong, check
from labs.grading.observed_trees import (
    DIRECTORY,
    FIFO,
    FILE,
    OPAQUE,
    SYMLINK,
    WHITEOUT,
    File,
    Tree,
    difference,
    plant,
    seen,
    told,
)
from labs.grading.subject import Call, Subject
from minicontainer.linux import tar

UMASK = 0o077
"""Of whoever calls the functions: files have the modes that are asked for all the same."""
REFERENCE = "org.opencontainers.image.ref.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MUCH = 1 << 20

# apply_layer


@check("Files, directories and links of both kinds are there", exercise="layers.apply_layer", points=1)
def test_files(subject: Subject) -> None:
    """layer.md of the OCI image specification, "File Types"; link(2), symlink(2); ls -li"""
    tree = _tree(subject)
    found = _unpacked(subject, _archive(tree))
    subject.saw(f"the tree after apply_layer: {told(found)}")
    linked = next(path for path, file in tree.items() if file.same_as)
    if linked in found and not found[linked].same_as:
        raise Wrong(
            f"{linked} is a hard link to {tree[linked].same_as} in the archive, and in the tree it is a file of its own: "
            f"whoever writes to one of the two does not change the other, and the layer takes its room twice. link(2)"
        )
    if wrong := difference(tree, _below(found), ["content", "same_as"]):
        raise Wrong(f"the tree is not what the archive has: {wrong}")


@check("With their modes, owners, times and attributes", exercise="layers.apply_layer", points=1)
def test_attributes(subject: Subject) -> None:
    """chown(2) on what becomes of setuid; umask(2); utimensat(2); xattr(7)"""
    tree = _tree(subject)
    found = _unpacked(subject, _archive(tree))
    if difference(tree, _below(found), ["kind"]):
        raise Wrong("not even the files are all there: what modes those have that are, is no merit then")
    for path, file in tree.items():
        there = found[path]
        if file.kind == SYMLINK or file.same_as:
            continue
        subject.saw(
            f"{path}: mode {there.mode:04o}, owner {there.owner[0]}:{there.owner[1]}, modified {there.modified}"
        )
        if file.mode & 0o6000 and there.mode == file.mode & 0o777:
            raise Wrong(
                f"{path} should have mode {file.mode:04o} and has {there.mode:04o}: the kernel takes setuid and setgid "
                f"away whenever a file is given to an owner, chown(2). First the owner, then the mode"
            )
        if there.mode != file.mode:
            masked = there.mode == file.mode & ~UMASK
            why = f": what open(2) and mkdir(2) are given is cut by the umask, {UMASK:04o} here; chmod(2) is not"
            raise Wrong(f"{path} should have mode {file.mode:04o} and has {there.mode:04o}{why if masked else ''}")
        if there.owner != file.owner:
            raise Wrong(
                f"{path} should belong to {file.owner[0]}:{file.owner[1]} and belongs to {there.owner[0]}:{there.owner[1]}: "
                f"the numbers in the archive say whose it is, not who unpacks it"
            )
        if there.modified != file.modified:
            late = file.kind == DIRECTORY
            why = (
                ": every file that is put into a directory changes the directory's time, so directories get theirs last"
                if late
                else ": utimensat(2), after the last write"
            )
            raise Wrong(f"{path} was modified at {file.modified}, says the archive, and at {there.modified} here{why}")
        if there.xattrs != file.xattrs:
            raise Wrong(
                f"{path} should have the extended attributes {dict(file.xattrs)}, and has {dict(there.xattrs)}: a pax "
                f"header SCHILY.xattr.NAME brings them"
            )


@check("What a layer takes away is marked as overlayfs wants it", exercise="layers.apply_layer", points=1)
def test_whiteouts(subject: Subject) -> None:
    """layer.md, "Whiteouts"; overlayfs.rst, "whiteouts and opaque directories": a character device 0:0"""
    gone, replaced, other = subject.name("gone"), subject.name("replaced"), subject.name("other")
    tree = {
        "d": File(DIRECTORY, mode=0o755),
        f"d/.wh.{gone}": File(),
        f"d/.wh.{replaced}": File(),
        f"d/{replaced}": File(content=b"new"),
        f"d/{other}": File(content=b"new"),
        f"d/.wh.{other}": File(),
    }
    found = _unpacked(subject, _archive(tree))
    subject.saw(f"the tree after apply_layer: {told(found)}")
    if kept := [path for path in found if "/.wh." in path]:
        raise Wrong(
            f"{kept[0]} is in the tree: overlayfs knows nothing of such names, so in the container {gone} is still seen, "
            f"and beside it a file {kept[0].partition('/')[2]}. On disk the mark is a character device 0:0 called {gone}"
        )
    there = found.get(f"d/{gone}")
    if there is None:
        raise Wrong(
            f"the layer hides {gone} (its mark is in the archive), and nothing is there to hide it: the mark was passed "
            f"over, or taken for an order to remove the file here. What it hides lies in a layer below"
        )
    if there.kind != WHITEOUT:
        raise Wrong(
            f"d/{gone} should be a character device 0:0 and is a {there.kind}: for overlayfs this is a file like any "
            f"other, and it is what the container sees"
        )
    for name, where in ((replaced, "after"), (other, "before")):
        there = found.get(f"d/{name}")
        if there is None or there.kind != FILE or there.content != b"new":
            raise Wrong(
                f"the archive has a mark for {name}, and {where} it a new file {name}, "
                f"and in the tree {name} is {'missing' if there is None else f'a {there.kind}'}: a mark hides what the "
                f"layers below have, never what its own layer brings, in whichever order the two stand"
            )


@check("A directory of which all below is hidden is opaque", exercise="layers.apply_layer", points=1)
def test_opaque(subject: Subject) -> None:
    """layer.md, "Opaque Whiteout": .wh..wh..opq; overlayfs.rst: the attribute overlay.opaque; "userxattr\""""
    tree = {
        "d": File(DIRECTORY, mode=0o755),
        "d/own": File(content=b"of this layer"),
        "d/.wh..wh..opq": File(),
        "e": File(DIRECTORY, mode=0o755),
        "e/own": File(),
    }
    found = _unpacked(subject, _archive(tree))
    marks = found["d"].xattrs if "d" in found else {}
    subject.saw(f"the tree after apply_layer: {told(found)}; attributes of d: {dict(marks)}")
    if odd := [path for path in found if ".wh." in path or "wh..opq" in path]:
        raise Wrong(
            f"{odd[0]} is in the tree, and should not be: the mark .wh..wh..opq hides no file of that name, it says that "
            f"nothing of the layers below is seen in this directory. On disk that is an extended attribute of the directory"
        )
    if "d/own" not in found or found["d/own"].kind != FILE:
        raise Wrong("d/own, a file of this layer, is gone: what is opaque hides the layers below, not its own")
    if marks.get(OPAQUE) != b"y":
        raise Wrong(
            f"nothing says that d is opaque: what the layers below have in it shines through. The sandbox is a user "
            f"namespace, where trusted.* attributes cannot be set, so overlayfs looks for {OPAQUE}=y"
        )
    if found["e"].xattrs:
        raise Wrong("e is opaque too, and no mark in the archive says so: what lies in it below is lost")


@check("Nothing is put outside of the directory", exercise="layers.apply_layer", points=1)
def test_nothing_outside(subject: Subject) -> None:
    """path_resolution(7); openat2(2), RESOLVE_IN_ROOT; CVE-2019-14271 and many before it"""
    for kind in ("dots", "absolute", "link", "hard link"):
        where = subject.scratch("layer", "outside")
        outside, name, secret = f"{where}/outside", subject.name("evil"), subject.name("secret")
        subject.perform(plant(f"{outside}/d", {"secret": File(content=secret.encode(), mode=0o600)}))
        hostile = {
            "dots": {f"../outside/{name}": File(content=b"evil")},
            "absolute": {f"{outside}/{name}": File(content=b"evil")},
            "link": {"s": File(SYMLINK, outside.encode()), f"s/{name}": File(content=b"evil")},
            "hard link": {name: File(same_as=f"{outside}/d/secret")},
        }[kind]
        before = seen(subject.sandbox, outside)
        refused = _try(subject, _archive({"ok": File(content=b"ok"), **hostile}), f"{where}/layer")
        found = seen(subject.sandbox, f"{where}/layer")
        after = seen(subject.sandbox, outside)
        subject.saw(f"{kind}: {refused or 'taken'}; outside: {told(after)}")
        if "ok" not in found:
            raise Wrong(f"not even the first, harmless entry of the archive is there. {refused}".strip())
        if difference(before, after, ["content"]):
            what = {
                "dots": f'an entry called "../outside/{name}"',
                "absolute": f'an entry called "{outside}/{name}"',
                "link": f'an entry "s/{name}" behind an entry "s", which is a symbolic link to {outside}',
                "hard link": "a hard link",
            }[kind]
            raise Wrong(
                f"{what} has put a file outside of the directory: whoever made the image writes wherever they want, as "
                f"root. Refuse it, or walk by open directories, where every link is followed as the container would"
            )
        if any(file.number == before["d/secret"].number for file in found.values()):
            raise Wrong(
                f"a hard link to {outside}/d/secret was made: the container has a name for a file of the host's now, and "
                f"can read and write it. A link leads to an entry of the same archive"
            )
        if any(file.content == secret.encode() for file in found.values()):
            raise Wrong(
                f"a hard link to {outside}/d/secret was asked for, and what is in that file was copied into the layer: the "
                f"container reads what is the host's. A link leads to an entry of the same archive"
            )


# stack


@check("The topmost layer that has a file shows it", exercise="overlay.stack", points=1)
def test_stack(subject: Subject) -> None:
    """overlayfs.rst, "Multiple lower layers", "userxattr"; mount(8), "Mount options for overlay"; /proc/PID/mountinfo"""
    where, lowers = _layers(subject)
    process = subject.perform(
        [("mount.make_private", []), ("overlay.stack", [lowers, f"{where}/upper", f"{where}/work", f"{where}/merged"])]
    )
    mount = next((one for one in process.mountinfo() if one.mountpoint == f"{where}/merged"), None)
    if mount is None or mount.fstype != "overlay":
        raise Wrong(
            f"at the target {'nothing is mounted' if mount is None else f'a {mount.fstype} is mounted'}: it should be an overlay"
        )
    found = seen(process, f"{where}/merged")
    subject.saw(f"{mount.fstype}, {','.join(mount.super_options)}; it shows {told(found)}")
    said = found["same"].content.decode() if "same" in found else "nothing"
    if said != "top":
        raise Wrong(
            f'"same" is in all three layers, and what is seen is that of "{said}", and not of the first one given: in '
            f'"lowerdir=" the topmost layer comes first'
        )
    for name in ("only top", "only middle", "only bottom"):
        if name not in found:
            raise Wrong(f'"{name}" is in one of the layers and is not seen: not all of them were stacked')
    if "hidden" in found:
        raise Wrong('"hidden" is seen, and the topmost layer has a whiteout for it')
    if "opaque/below" in found:
        raise Wrong(
            "opaque/below is seen, and the topmost layer has an opaque directory over it: in a user namespace overlayfs "
            'believes user.overlay.* attributes only, and only with the option "userxattr"'
        )
    before = {path: seen(subject.sandbox, path) for path in lowers}
    process.then([("os.mkdir", [f"{where}/merged/new"]), ("os.unlink", [f"{where}/merged/only bottom"])])
    written = seen(subject.sandbox, f"{where}/upper")
    subject.saw(f"after a mkdir and an unlink in there, upper has {told(written)}")
    if {"new", "only bottom"} - written.keys():
        raise Wrong(f"what was written in there is not in {where}/upper, which was to be upperdir")
    if any(difference(tree, seen(subject.sandbox, path)) for path, tree in before.items()):
        raise Wrong("what was written in there has changed one of the layers, which others may lie on too")
    reader = subject.perform([("mount.make_private", []), ("overlay.stack", [lowers, "", "", f"{where}/merged"])])
    mounts = [one for one in reader.mountinfo() if one.mountpoint == f"{where}/merged"]
    if not mounts or any(option.startswith("upperdir") for option in mounts[-1].super_options):
        raise Wrong('with "" for upper, the layers are to be shown read-only: an overlay without an upperdir')


# pack_layer


@check(
    "A layer that was packed is the same tree, with its marks translated back", exercise="layers.pack_layer", points=1
)
def test_pack(subject: Subject) -> None:
    """layer.md; pax(1), "pax Interchange Format"; tar -tvf"""
    tree = {**_tree(subject), "hides": File(DIRECTORY, mode=0o755, xattrs={OPAQUE: b"y"}), "hides/gone": File(WHITEOUT)}
    where = subject.scratch()
    raw = _packed(subject, tree, where, list(tree))
    entries = _entries(raw)
    names = {entry.name.strip("/").removeprefix("./"): entry for entry in entries}
    subject.saw(f"the archive has {' '.join(list(names)[:20])}")
    if any(entry.kind == tar.CHARACTER and entry.name.endswith("gone") for entry in entries):
        raise Wrong(
            "the whiteout travels as a character device 0:0 called hides/gone: that is overlayfs's own mark, and no other "
            "tool knows what it means. In an archive it is an empty file hides/.wh.gone"
        )
    if "hides/.wh.gone" not in names:
        raise Wrong("nothing in the archive says that hides/gone is hidden: an empty file hides/.wh.gone would")
    if "hides/.wh..wh..opq" not in names:
        raise Wrong("nothing in the archive says that the directory hides is opaque: a file hides/.wh..wh..opq would")
    if marked := [entry.name for entry in entries if any(".overlay." in name for name in entry.xattrs)]:
        raise Wrong(
            f"{marked[0]} travels with overlayfs's own attributes: who unpacks it would be led elsewhere by them"
        )
    for path, file in tree.items():
        if file.kind == WHITEOUT:
            continue
        if path not in names:
            raise Wrong(f"{path} ({file.kind}) is not in the archive")
        entry = names[path]
        if file.same_as or any(other.same_as == path for other in tree.values()):
            pair = [path, file.same_as or next(name for name, other in tree.items() if other.same_as == path)]
            if sum(names[one].kind == tar.LINK for one in pair if one in names) != 1:
                raise Wrong(
                    f"{pair[0]} and {pair[1]} are two names of one file, and the archive has the file twice: the second one "
                    f"that is met goes as a link to the first"
                )
            continue
        asked = (file.mode, *file.owner, file.modified)
        has = (entry.mode, entry.uid, entry.gid, entry.mtime // 10**9)
        if file.kind != SYMLINK and asked != has:
            raise Wrong(
                f"{path} has mode {asked[0]:04o}, owner {asked[1]}:{asked[2]} and was modified at {asked[3]}, and the "
                f"archive says {has[0]:04o}, {has[1]}:{has[2]}, {has[3]}"
            )
        if file.kind == SYMLINK and entry.link != file.content.decode():
            raise Wrong(f"{path} leads to {file.content.decode()}, and the archive says: to {entry.link or 'nowhere'}")


@check("The same tree gives the same digest", exercise="layers.pack_layer", points=1)
def test_deterministic(subject: Subject) -> None:
    """readdir(3): "the order in which filenames are read … is unlikely to be sorted"; sha256sum"""
    tree: Tree = {f"{letter}{secrets.token_hex(2)}": File(content=letter.encode()) for letter in "abcdefgh"}
    one, other = subject.scratch(), subject.scratch()
    first = _packed(subject, tree, one, list(tree))
    second = _packed(subject, tree, other, list(tree)[::-1])
    digests = [hashlib.sha256(raw).hexdigest()[:12] for raw in (first, second)]
    subject.saw(f"two trees with the same files, made in opposite orders: sha256 {' and '.join(digests)}")
    entries = _entries(first), _entries(second)
    names = [[entry.name for entry in some] for some in entries]
    if not entries[0] or len(names[0]) < len(tree):
        raise Wrong("the archive does not have all of the files: that it is the same twice is no merit then")
    if digests[0] == digests[1]:
        return
    if names[0] != names[1]:
        raise Wrong(
            f"the same tree has given two archives, {digests[0]} and {digests[1]}: the names in them stand in the order in "
            f"which the directory lists them, which is the file system's affair. Sort them"
        )
    times = any(a.mtime != b.mtime for a, b in zip(*entries, strict=True))
    raise Wrong(
        f"the same tree has given two archives, {digests[0]} and {digests[1]}, with the same names in the same order: "
        f"{'the times in them are not those of the files' if times else 'something of this machine or moment is in them'}"
    )


# resolve


@check("What an image is made of is found, for the platform that is asked for", exercise="layout.resolve", points=1)
def test_resolve(subject: Subject) -> None:
    """image-layout.md, image-index.md, manifest.md of the OCI image specification"""
    layout = Layout(subject)
    place = layout.place(subject)
    for name, platform in (("mine", "linux/s390x"), ("mine", "linux/riscv64"), ("other", "linux/s390x")):
        wanted = layout.wanted[name, platform]
        process = subject.perform("layout.resolve", place, f"{layout.names[name]}", platform)
        told_ = process.returned
        got = [one.get("digest") for one in told_ if isinstance(one, dict)] if isinstance(told_, list) else []
        subject.saw(f"{name} for {platform}: {' '.join(str(one)[7:19] for one in got) or 'nothing'}")
        if got == wanted:
            continue
        if not got:
            raise Wrong("resolve() returned no list of descriptors: dictionaries with mediaType, digest and size")
        if got == [wanted[0], *wanted[:0:-1]]:
            raise Wrong(
                "the layers come in the wrong order: a manifest lists them from the bottom up, and so should the answer"
            )
        if got == wanted[1:]:
            raise Wrong("the image's configuration is missing: it comes first, before the layers")
        for (other, there), digests in layout.wanted.items():
            if got == digests and other == name:
                raise Wrong(
                    f"asked for {platform}, it gave what {there} has: the index says which manifest is for whom"
                )
            if got == digests:
                raise Wrong(
                    f"asked for the image {layout.names[name]}, it gave another one, {layout.names[other]}: the "
                    f"annotation {REFERENCE} in index.json has the names"
                )
        raise Wrong("what came back are not the digests of the configuration and the layers of the image's manifest")


@check("Nothing is believed before its digest is right", exercise="layout.resolve", points=1)
def test_verified(subject: Subject) -> None:
    """descriptor.md, "Verification"; sha256sum"""
    layout = Layout(subject)
    sound = layout.place(subject)
    process = subject.perform("layout.resolve", sound, layout.names["other"], "linux/s390x")
    if not isinstance(process.returned, list):
        raise Wrong("resolve() returns nothing even for an image that is sound: what it refuses is no merit then")
    for what in ("manifest", "index"):
        damaged = layout.place(subject, damage=what)
        try:
            process = subject.perform("layout.resolve", damaged, layout.names["mine"], "linux/s390x")
        except Wrong as told_:
            subject.saw(f"{what} that leads elsewhere: {told_}")
            continue
        subject.saw(f"{what} that leads elsewhere: taken")
        raise Wrong(
            f"the {what} was changed, so that it leads to what belongs to another image, and it was taken nevertheless: its "
            f"name is its digest, and it does not have that digest any more. Whoever can write to the disk, or sits between you "
            f"and the registry, would choose what you run"
        )


class Layout:
    """An OCI image layout: an image for two platforms, and another one."""

    def __init__(self, subject: Subject) -> None:
        self.blobs: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}
        self.media_types: dict[str, str] = {}
        self.names = {"other": subject.name("example.org/other"), "mine": subject.name("example.org/mine")}
        self.wanted: dict[tuple[str, str], list[str]] = {}
        tops = []
        for name, reference in self.names.items():
            manifests = []
            for platform in ("linux/riscv64", "linux/s390x"):
                config = self._descriptor("application/vnd.oci.image.config.v1+json", secrets.token_bytes(20))
                layers = [
                    self._descriptor("application/vnd.oci.image.layer.v1.tar+gzip", secrets.token_bytes(20))
                    for _ in range(3)
                ]
                manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
                system, architecture = platform.split("/")
                described = self._document(MANIFEST, manifest)
                manifests.append({**described, "platform": {"os": system, "architecture": architecture}})
                self.wanted[name, platform] = [config["digest"], *(layer["digest"] for layer in layers)]
            described = self._document(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
            tops.append({**described, "annotations": {REFERENCE: reference}})
        self.index = json.dumps({"schemaVersion": 2, "manifests": tops}).encode()

    def place(self, subject: Subject, damage: str = "") -> str:
        """Plant it; with `damage`, every "manifest", or every "index", leads to what belongs to another image."""
        where = f"{subject.scratch()}/layout"
        tree = {"blobs": File(DIRECTORY, mode=0o755), "blobs/sha256": File(DIRECTORY, mode=0o755)}
        for digest, raw in self.blobs.items():
            content = self._damaged(raw) if damage and self.kinds.get(digest) == damage else raw
            tree[f"blobs/sha256/{digest.removeprefix('sha256:')}"] = File(content=content)
        tree |= {"index.json": File(content=self.index), "oci-layout": File(content=b'{"imageLayoutVersion": "1.0.0"}')}
        subject.perform(plant(where, tree))
        return where

    def _damaged(self, raw: bytes) -> bytes:
        """The document, leading to blobs that are there and sound, and are others'."""
        document = json.loads(raw)
        own = document.get("manifests") or document["layers"]
        kind = own[0]["mediaType"]
        others = [digest for digest in self.blobs if self.media_types[digest] == kind and digest.encode() not in raw]
        for descriptor, other in zip(own, others, strict=False):
            raw = raw.replace(descriptor["digest"].encode(), other.encode())
        return raw

    def _document(self, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
        described = self._descriptor(kind, json.dumps(document).encode())
        self.kinds[str(described["digest"])] = "index" if kind == INDEX else "manifest"
        return described

    def _descriptor(self, kind: str, raw: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest], self.media_types[digest] = raw, kind
        return {"mediaType": kind, "digest": digest, "size": len(raw)}


# What the checks are made of


def _tree(subject: Subject) -> Tree:
    """A tree that nobody can know beforehand, with one file of every kind."""
    users = (0, 0)
    if sum(count for _, _, count in subject.sandbox.id_map("uid")) >= 1 << 16:
        users = (1 + secrets.randbelow(1000), 1 + secrets.randbelow(1000))
    then = 1_300_000_000 + secrets.randbelow(1 << 28)
    word = subject.name("d")
    return {
        word: File(DIRECTORY, mode=0o751, owner=users, modified=then),
        f"{word}/plain": File(content=secrets.token_hex(8).encode(), mode=0o664, owner=users, modified=then + 1),
        f"{word}/setuid": File(content=b"#!", mode=0o4755, owner=users, modified=then + 2),
        f"{word}/plain-too": File(same_as=f"{word}/plain"),
        f"{word}/attributes": File(mode=0o600, modified=then + 3, xattrs={"user.course": b"lab 13"}),
        f"{word}/link": File(SYMLINK, b"../nowhere"),
        f"{word}/pipe": File(FIFO, mode=0o622, modified=then + 4),
        f"{word}/inner": File(DIRECTORY, mode=0o1777, modified=then + 5),
        f"{word}/inner/file": File(content=b"deep", modified=then + 6),
    }


def _archive(tree: Mapping[str, File]) -> bytes:
    """The tree as Python's own tarfile writes it."""
    out = io.BytesIO()
    kinds = {FILE: tarfile.REGTYPE, DIRECTORY: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE, FIFO: tarfile.FIFOTYPE}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, file in tree.items():
            member = tarfile.TarInfo(path)
            member.type = tarfile.LNKTYPE if file.same_as else kinds[file.kind]
            member.mode, (member.uid, member.gid), member.mtime = file.mode, file.owner, file.modified
            member.linkname = file.same_as or (file.content.decode() if file.kind == SYMLINK else "")
            member.pax_headers = {f"SCHILY.xattr.{name}": value.decode() for name, value in file.xattrs.items()}
            content = file.content if file.kind == FILE and not file.same_as else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    raw = out.getvalue()
    return raw.rstrip(b"\0") + bytes(-len(raw.rstrip(b"\0")) % 512 + 1024)


def _apply(archive: bytes, where: str, directory: str) -> tuple[list[Call], list[Call]]:
    """The calls that put the archive into the sandbox, and those that unpack it."""
    before = plant(where, {"archive": File(content=archive)})
    return before, [
        ("os.umask", [UMASK]),
        ("layers.apply_layer", [{"open": f"{where}/archive", "mode": "rb"}, directory]),
    ]


def _unpacked(subject: Subject, archive: bytes) -> Tree:
    where = subject.scratch("layer")
    before, calls = _apply(archive, f"{where}/given", f"{where}/layer")
    process = subject.perform(before)
    process.then(calls)
    return seen(process, f"{where}/layer")


def _try(subject: Subject, archive: bytes, directory: str) -> str:
    """Let it be unpacked, or refused; returns what was complained of. Raises Wrong: it is not written yet."""
    before, calls = _apply(archive, f"{directory}.given", directory)
    process = subject.perform(before)
    try:
        process.then(calls)
    except Wrong as complaint:
        if "not written yet" in str(complaint) or "no cell begins with" in str(complaint) or not process.alive:
            raise
        return str(complaint)
    return ""


def _below(found: Tree) -> Tree:
    return {path: file for path, file in found.items() if path != "."}


def _packed(subject: Subject, tree: Tree, where: str, order: Sequence[str]) -> bytes:
    """What pack_layer writes of this tree, which was made in this order."""
    process = subject.perform(plant(f"{where}/tree", {path: tree[path] for path in order}))
    process.then([("layers.pack_layer", [f"{where}/tree", {"open": f"{where}/archive", "mode": "w+b"}])])
    return process.read(f"{where}/archive", MUCH)


def _entries(raw: bytes) -> list[tar.Entry]:
    if not raw:
        raise Wrong("nothing was written to the archive")
    try:
        return list(tar.read(io.BytesIO(raw)))
    except tar.TarError as error:
        raise Wrong(f"what was written is no tar: {error}") from None


def _layers(subject: Subject) -> tuple[str, list[str]]:
    """Three layers in the sandbox, the topmost first, and the directory that they are in."""
    where = subject.scratch("upper", "work", "merged")
    top: Tree = {
        "hidden": File(WHITEOUT),
        "opaque": File(DIRECTORY, mode=0o755, xattrs={OPAQUE: b"y"}),
        "opaque/above": File(),
    }
    bottom: Tree = {"hidden": File(), "opaque": File(DIRECTORY, mode=0o755), "opaque/below": File()}
    for name, own in (("top", top), ("middle", dict[str, File]()), ("bottom", bottom)):
        tree = {"same": File(content=name.encode()), f"only {name}": File(), **own}
        subject.perform(plant(f"{where}/{name}", tree))
    return where, [f"{where}/{name}" for name in ("top", "middle", "bottom")]
