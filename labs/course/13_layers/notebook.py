# %% [markdown]
# # Lab 13: an image is a pile of tars
#
# **The question:** what is in an image, who has put it there, and how can a hundred containers share it and each of
# them write to it?
#
# **You will learn** how overlayfs shows several directories as one, how something is removed from what cannot be
# written to, how a layer travels, why its name is a digest, and what an archive of somebody else's may try.
#
# **You need** [overlayfs](https://docs.kernel.org/filesystems/overlayfs.html), the OCI image specification
# ([layer.md](https://github.com/opencontainers/image-spec/blob/main/layer.md),
# [image-layout.md](https://github.com/opencontainers/image-spec/blob/main/image-layout.md)); about two hours. From the
# labs before: mounts (lab 02).
#
# Run the cells from the top, one after the other: Shift-Enter. Where there is a `%%predict`, write what you expect
# behind the colon and run it, *before* the experiment below it.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## Directories over one another
#
# overlayfs (Linux 3.18, 2014) is a file system without a disk. It shows directories that are there already, the
# *lower* ones, as one tree. `layer` makes such a directory out of a few words, in a file system in memory that only
# this cell has.

# %%
# %%predict topmost
# Three layers have a file "who", each with its own name in it, and each has a file that no other has. What is seen?
# Then somebody writes to "who" through the overlay. Which directory does the new content lie in?
# My prediction:

# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import layer, overlay, workshop

place = workshop()
base = layer(f"{place}/base", {"who": "base", "base-only": "base", "etc/motd": "hello"})
tool = layer(f"{place}/tool", {"who": "tool", "tool-only": "tool"})
app = layer(f"{place}/app", {"who": "app", "app-only": "app"})
upper = f"{place}/upper"
shown = overlay([app, tool, base], upper)
print("who:", open(f"{shown}/who").read())
open(f"{shown}/who", "w").write("changed")
stacks.layers({"upper": upper, "app": app, "tool": tool, "base": base}, shown)

# %%
# %look_back topmost

# %% [markdown]
# The name is looked up from the top, and the first layer that has it wins. **Only directories are merged.** And nothing
# below was written to: before its first change a file is copied into the *upper* directory (copy-up), whole, be it a
# byte that changes or all of them. So any number of containers can lie on the same three layers, each with an upper
# directory of its own. That is the writable layer of Docker, and the `overlay-upper` of LXC.
#
# ## Removing what cannot be written to

# %%
# %%predict removed
# Through the overlay, somebody removes "base-only", which only the lowest layer has. The lowest layer is not to be
# changed. What must be in the upper directory then? And after: rm -r etc; mkdir etc?
# My prediction:

# %%
# %%isolated
import os
import shutil

from labs.notebook import stacks
from labs.notebook.layers import layer, listing, overlay, workshop

place = workshop()
base = layer(f"{place}/base", {"base-only": "base", "kept": "base", "etc/motd": "hello", "etc/issue": "debian"})
upper = f"{place}/upper"
shown = overlay([base], upper)
os.unlink(f"{shown}/base-only")
shutil.rmtree(f"{shown}/etc")
os.mkdir(f"{shown}/etc")
listing(upper, "the upper directory")
print("attributes of etc:", {name: os.getxattr(f"{upper}/etc", name) for name in os.listxattr(f"{upper}/etc")})
stacks.layers({"upper": upper, "base": base}, shown)

# %%
# %look_back removed

# %% [markdown]
# Two marks:
#
# | | on disk, for overlayfs | in an archive, for everybody |
# |---|---|---|
# | this name is hidden: a **whiteout** | a character device 0:0 of that name | an empty file `.wh.NAME` |
# | nothing below is seen in here: an **opaque** directory | the attribute `trusted.overlay.opaque` = `y`, in a user namespace `user.overlay.opaque` | an empty file `.wh..wh..opq` in it |
#
# The right column is older: it is what aufs had on disk, the file system of Docker's first years. The specification kept
# it. So whoever unpacks a layer translates one way, and whoever packs one, the other way.
#
# A note on size: what was removed is still in the image. A password that a layer brings and the next one deletes, is
# hidden from the container, and lies there for whoever has the image.
#
# ## Exercise 1: `apply_layer`
#
# ```
# apply_layer(archive: BinaryIO, directory: str) -> None
# ```
#
# `archive` is an open file with an uncompressed tar; unpack it into the empty `directory`, in the form that overlayfs
# takes. `tar.read(archive)` gives its entries one after the other:
#
# | of an `entry` | |
# |---|---|
# | `.name`, `.kind` | `tar.FILE`, `DIRECTORY`, `SYMLINK`, `LINK` (a hard link), `FIFO` |
# | `.mode`, `.uid`, `.gid`, `.mtime` (in ns), `.xattrs` | what it is to have in the end |
# | `.link` | of a SYMLINK where it leads; of a LINK the name of the entry that it is another name of |
# | `.write_to(fd)` | writes the content of a FILE |
#
# - A mark hides what the layers *below* have, never what its own layer brings, in whichever order the two stand.
# - Owner, mode and times undo one another. Find the order; `dress` in the cell is the place for it (`make` and `dress` are
#   suggestions).
# - Whoever made the archive may mean harm. `open_in(top, "a/b", flags)` opens a path with the directory `top` as "/":
#   however the links in there lead, they stay in there. Then `/proc/self/fd/N/NAME` is a path that nobody can bend.
#
# The archives of this lab name each directory before what is in it, no name comes twice, and there are no devices. The
# course's own step does not rely on that. Stuck? `%hint layers.apply_layer`.

# %%
# %%predict escape
# An archive has an entry "s", a symbolic link to "/outside", and after it a file "s/evil". Whoever unpacks it joins
# "layer" and the name, and opens that. Where does the file go? And the name "../evil"?
# My prediction:

# %%
# %%isolated
import io
import os

from labs.notebook.layers import archive, listing, workshop
from minicontainer.linux import tar

place = workshop()
os.mkdir(f"{place}/layer")
os.mkdir(f"{place}/outside")
raw = archive({"s": f"-> {place}/outside", "s/evil": "I was here", "../evil too": "and here"})
for entry in tar.read(io.BytesIO(raw)):
    path = os.path.join(f"{place}/layer", entry.name)
    if entry.kind == tar.SYMLINK:
        os.symlink(entry.link, path)
    else:
        with open(path, "wb") as file:
            entry.write_to(file.fileno())
listing(place, "all that there is")

# %%
# %look_back escape

# %%
# %%exercise layers.apply_layer
import contextlib
import stat

from minicontainer.linux import in_user_namespace, open_in, tar


def apply_layer(archive, directory):
    """Unpack a layer, an uncompressed tar, into the empty `directory`, in the form that overlayfs takes."""
    # SOLUTION BEGIN
    opaque = "user.overlay.opaque" if in_user_namespace() else "trusted.overlay.opaque"
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    @contextlib.contextmanager
    def place(name):
        """The directory where an entry goes, as a path that no link can lead elsewhere, and its name in there."""
        *above, last = [part for part in name.split("/") if part not in ("", ".")] or ["."]
        if ".." in (*above, last):
            raise ValueError(f"{name!r} leads out of the layer")
        parent = open_in(top, "/".join(above) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{parent}", last
        finally:
            os.close(parent)

    marks, directories = [], []
    for entry in tar.read(archive):
        with place(entry.name) as (parent, name):
            path = f"{parent}/{name}"
            if name.startswith(".wh."):
                marks.append(entry)
            elif entry.kind == tar.DIRECTORY:
                if name != ".":
                    os.mkdir(path, 0o700)
                directories.append(entry)
            elif entry.kind == tar.LINK:
                with place(entry.link) as (there, target):
                    os.link(f"{there}/{target}", path, follow_symlinks=False)
            else:
                make(path, entry)
                dress(path, entry)
    for mark in marks:
        with place(mark.name) as (parent, name):
            hidden = f"{parent}/{name.removeprefix('.wh.')}"
            if name == ".wh..wh..opq":
                os.setxattr(parent, opaque, b"y")
            elif not os.path.lexists(hidden):
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
            elif stat.S_ISDIR(os.lstat(hidden).st_mode):
                os.setxattr(hidden, opaque, b"y")
    for entry in reversed(directories):  # what is in a directory before itself
        with place(entry.name) as (parent, name):
            dress(f"{parent}/{name}", entry)
    os.close(top)
    # SOLUTION END


def make(path, entry):
    """Make a file, a symbolic link or a pipe."""
    # SOLUTION BEGIN
    if entry.kind == tar.SYMLINK:
        os.symlink(entry.link, path)
    elif entry.kind == tar.FIFO:
        os.mkfifo(path, 0o600)
    else:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        entry.write_to(file)
        os.close(file)
    # SOLUTION END


def dress(path, entry):
    """Give a file what its entry says that it has."""
    # SOLUTION BEGIN
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != tar.SYMLINK:
        os.chmod(path, entry.mode)
        for name, value in entry.xattrs.items():
            os.setxattr(path, name, value)
    os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
    # SOLUTION END


# %% [markdown]
# Your function at work, and what overlayfs makes of it:

# %%
# %%isolated
import io
import os

from labs.notebook import stacks
from labs.notebook.layers import archive, entries, layer, listing, overlay, workshop

place = workshop()
raw = archive(
    {"bin/": "", "bin/su": "program", "etc/": "", "etc/.wh..wh..opq": "", "etc/new": "new", ".wh.old": ""},
    {"bin/su": 0o4755},
    {"bin/sudo": "bin/su"},
)
entries(raw)
base = layer(f"{place}/base", {"old": "base", "kept": "base", "etc/motd": "hello"})
os.mkdir(f"{place}/mine")
apply_layer(io.BytesIO(raw), f"{place}/mine")
listing(f"{place}/mine", "unpacked by you")
shown = overlay([f"{place}/mine", base])
stacks.layers({"yours": f"{place}/mine", "base": base}, shown)

# %% [markdown]
# ## Exercise 2: `stack`
#
# ```
# stack(lowers: Sequence[str], upper: str, work: str, target: str) -> None
# ```
#
# Show at `target` the directories `lowers`, the topmost first, below the writable directory `upper`; without one (`""`),
# read-only. `work` is an empty directory beside `upper`, in which the kernel prepares its copies.
#
# mount(8) lists the options under "Mount options for overlay": `lowerdir=`, `upperdir=`, `workdir=`. In a user namespace
# (`in_user_namespace()`) overlayfs must not believe `trusted.*` attributes, and looks for `user.*` ones if you say
# `userxattr`.

# %%
# %%exercise overlay.stack
from minicontainer.linux import in_user_namespace


def stack(lowers, upper, work, target):
    """Show at `target` the directories `lowers` (the topmost first) below the writable directory `upper`."""
    # SOLUTION BEGIN
    options = ["lowerdir=" + ":".join(lowers)]
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    if in_user_namespace():
        options.append("userxattr")
    mount("overlay", target, "overlay", 0, ",".join(options))
    # SOLUTION END


# %%
# %%isolated
from labs.notebook import stacks
from labs.notebook.layers import OPAQUE, WHITEOUT, layer, workshop

place = workshop()
base = layer(f"{place}/base", {"who": "base", "old": "base", "etc/motd": "hello"})
app = layer(f"{place}/app", {"who": "app", "old": WHITEOUT, "etc/": OPAQUE, "etc/new": "new"})
for name in ("upper", "work", "seen"):
    os.mkdir(f"{place}/{name}")
stack([app, base], f"{place}/upper", f"{place}/work", f"{place}/seen")
open(f"{place}/seen/written", "w").write("by me")
stacks.layers({"upper": f"{place}/upper", "app": app, "base": base}, f"{place}/seen")
_ = os.system("grep overlay /proc/self/mountinfo")

# %% [markdown]
# ## A name that cannot lie
#
# A layer is called what its bytes say: `sha256:` and 64 digits. Whoever has the digest can fetch the bytes from anybody,
# and knows whether they are right. It also means that the same layer is stored once, whoever has built it, *if* it has
# the same bytes.

# %%
# %%predict digest
# Two directories have the same three files, made in opposite orders, one of them a second later. Both are packed by
# tar(1), and the archives hashed. The same digest? And if tar is told --sort=name? And --mtime=@0 as well?
# My prediction:

# %%
# %%isolated
import hashlib
import os
import subprocess

from labs.notebook.layers import workshop

place = workshop()
for directory, names, when in (("one", "abc", 1_000_000_000), ("other", "cba", 1_000_000_001)):
    os.mkdir(f"{place}/{directory}")
    for name in names:
        open(f"{place}/{directory}/{name}", "w").write(name)
        os.utime(f"{place}/{directory}/{name}", (when, when))
for options in ("", "--sort=name", "--sort=name --mtime=@0"):
    for directory in ("one", "other"):
        raw = subprocess.check_output(["tar", *options.split(), "-cf", "-", "-C", f"{place}/{directory}", "."])
        print(f"tar {options:23} {directory:6} sha256:{hashlib.sha256(raw).hexdigest()[:16]}")

# %%
# %look_back digest

# %% [markdown]
# The order of a directory is the file system's affair, and the time is part of the content. Tools that want the same
# digest twice sort, write numbers instead of names of users, and leave out what is of the moment.
#
# ### Two digests for one layer

# %%
# %%predict compressed
# The same tar, compressed by gzip -1 and gzip -9: is the digest of the two blobs the same? And of what is in them?
# My prediction:

# %%
# %%isolated
import gzip
import hashlib

from labs.notebook.layers import archive

raw = archive({"etc/": "", "etc/motd": "hello " * 2000})
for level in (1, 9):
    blob = gzip.compress(raw, level, mtime=0)
    print(f"gzip -{level}: blob sha256:{hashlib.sha256(blob).hexdigest()[:16]}, {len(blob)} bytes;", end=" ")
    print(f"inside: sha256:{hashlib.sha256(gzip.decompress(blob)).hexdigest()[:16]}")

# %%
# %look_back compressed

# %% [markdown]
# So a layer has two: the **digest** of the blob, by which it is fetched, stands in the manifest. The **diff ID**, of
# the uncompressed tar, stands in the configuration, and says what is unpacked: the same, however it was compressed.
#
# ## Exercise 3: `pack_layer`
#
# ```
# pack_layer(directory: str, archive: BinaryIO) -> None
# ```
#
# The way back: write what is in `directory`, a layer as overlayfs has it, to `archive`. With `tar.Writer(archive)`, its
# `add(entry)`, for a FILE `add(entry, fd)`, and `close()`. An entry is made by
# `tar.Entry(name, kind, mode, uid, gid, size=…, mtime=…, link=…, xattrs=…)`.
#
# - The same tree gives the same bytes.
# - A file with two names goes once; the second is a LINK to the first.
# - The marks are translated; overlayfs's own attributes stay at home.

# %%
# %%exercise layers.pack_layer
import stat

from minicontainer.linux import tar


def pack_layer(directory, archive):
    """Write what is in `directory`, a layer in the form that overlayfs takes, to `archive` as an uncompressed tar."""
    # SOLUTION BEGIN
    kinds = {stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO}
    writer, first = tar.Writer(archive), {}

    def pack(path, name):
        about = os.lstat(path)
        if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
            above, _, hidden = name.rpartition("/")
            writer.add(tar.Entry(f"{above}/.wh.{hidden}".lstrip("/")))
            return
        kind = kinds[stat.S_IFMT(about.st_mode)]
        entry = tar.Entry(name, kind, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, mtime=about.st_mtime_ns)
        if kind == tar.DIRECTORY:
            attributes = os.listxattr(path)
            writer.add(entry)
            if any(attribute.endswith(".overlay.opaque") for attribute in attributes):
                writer.add(tar.Entry(f"{name}/.wh..wh..opq"))
            for inner in sorted(os.listdir(path)):
                pack(f"{path}/{inner}", inner if name == "." else f"{name}/{inner}")
            return
        met = first.setdefault((about.st_dev, about.st_ino), name)
        if met != name:
            entry.kind, entry.link = tar.LINK, met
        elif kind == tar.SYMLINK:
            entry.link = os.readlink(path)
        elif kind == tar.FILE:
            entry.size = about.st_size
            entry.xattrs = {attribute: os.getxattr(path, attribute) for attribute in os.listxattr(path)}
            with open(path, "rb") as file:
                writer.add(entry, file.fileno())
            return
        writer.add(entry)

    pack(directory, ".")
    writer.close()
    # SOLUTION END


# %%
# %%isolated
import io

from labs.notebook.layers import OPAQUE, WHITEOUT, entries, layer, workshop

place = workshop()
mine = layer(f"{place}/mine", {"b": "b", "a": "a", "etc/": OPAQUE, "etc/new": "new", "old": WHITEOUT})
os.link(f"{mine}/b", f"{mine}/c")
out = io.BytesIO()
pack_layer(mine, out)
entries(out.getvalue())

# %% [markdown]
# ## From a name to the layers
#
# An image on disk is a directory, an OCI image layout: what `skopeo copy … oci:DIR` writes, and a registry speaks the
# same documents.

# %%
# %%isolated
import hashlib
import json
import os

from labs.notebook.layers import archive, image_layout, workshop

place = image_layout(f"{workshop()}/layout", "example.org/hello:1", [archive({"a": "base"}), archive({"b": "app"})])
os.system(f"cd {place}; find . -type f | sort; echo; sha256sum blobs/sha256/* | cut -c1-12,64-92; echo; cat index.json")
index = json.load(open(f"{place}/index.json"))
while "layers" not in index:
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    index = json.load(open(f"{place}/blobs/sha256/{digest}"))
    print(f"\n\n{digest[:12]}…:", json.dumps(index, indent=1), end="")

# %% [markdown]
# ```
# index.json ──name──▶ index ──platform──▶ manifest ──▶ configuration, layers from the bottom up
# ```
#
# Each arrow is a **descriptor**: media type, digest, size. Follow them, and you have the image; change any byte of it,
# and the name of everything above changes too. Such a tree of digests has a name, Merkle's; git has the same.
#
# ## Exercise 4: `resolve`
#
# ```
# resolve(layout: str, reference: str, platform: str = "linux/amd64") -> list[dict]
# ```
#
# What the image `reference` in the directory `layout` is made of: the descriptors of its configuration and of its
# layers, from the bottom up, for this `platform`. Believe no document before you have computed its digest.

# %%
# %%exercise layout.resolve
import hashlib
import json


def resolve(layout, reference, platform="linux/amd64"):
    """What the image `reference` in the directory `layout` is made of: the descriptors of its configuration and of its
    layers, from the bottom up."""
    # SOLUTION BEGIN
    with open(f"{layout}/index.json", "rb") as file:
        document = json.load(file)
    name = "org.opencontainers.image.ref.name"
    found = [one for one in document["manifests"] if one.get("annotations", {}).get(name) == reference]
    while "layers" not in document:
        system, architecture = platform.split("/")
        wanted = {"os": system, "architecture": architecture}
        chosen = next(one for one in found if one.get("platform", wanted) == wanted)
        digest = chosen["digest"].removeprefix("sha256:")
        with open(f"{layout}/blobs/sha256/{digest}", "rb") as file:
            raw = file.read()
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"what lies there is not sha256:{digest}")
        document = json.loads(raw)
        found = document.get("manifests", [])
    return [document["config"], *document["layers"]]
    # SOLUTION END


# %%
# %%isolated
import os

from labs.notebook.layers import archive, image_layout, workshop

place = image_layout(f"{workshop()}/layout", "example.org/hello:1", [archive({"a": "base"}), archive({"b": "app"})])
for descriptor in resolve(place, "example.org/hello:1", "linux/arm64"):
    print(descriptor)
skopeo = "skopeo inspect --override-arch arm64 --format '{{range .Layers}}{{println .}}{{end}}'"
print("and what skopeo says of the same directory:", flush=True)
_ = os.system(f"{skopeo} oci:{place}:example.org/hello:1 2>&1 || echo it is not there: apt install skopeo")

# %% [markdown]
# ## What does the kernel think?
#
# The checks plant trees that nobody can know beforehand, have archives written by another tool (Python's `tarfile`),
# and look at what became of them from outside: at files, inodes, attributes, and at what the kernel says it has mounted.

# %%
# %check 13

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 13 --subject notebooks/13-layers.ipynb
# ```
#
# ## What to take away
#
# | Docker says | LXC says | the kernel says |
# |---|---|---|
# | image layers | the rootfs below | `lowerdir=`, read-only, shared |
# | the container's writable layer | the overlay's delta | `upperdir=`, one for each |
# | a layer that deletes a file | – | a character device 0:0 |
# | `docker commit`, `docker save` | – | a tar of the upper directory, with `.wh.` marks |
#
# - Layers share what is below, and nobody writes there. Deleting adds something.
# - A digest is a name that whoever gives you the bytes cannot lie about; only if you check it.
# - An archive is a list of orders from somebody you do not know.
#
# ## Going further
#
# - `minicontainer` unpacks by the course's step, `minicontainer/steps/layers.py`, and what it refuses is listed in
#   `docs/IMAGES.md`. Which of these attempts does your function withstand?
# - Take an image to pieces: `skopeo copy docker://… oci:hello:1`, then your `resolve`, `gzip -d`, your `apply_layer`.
# - `umoci unpack` does all of this in one command. Compare its tree with yours by `diff -r`, `getfattr` and `stat`.
