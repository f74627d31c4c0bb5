# %% [markdown]
# # Lab 13: an image is a pile of tars

# %%
# %load_ext labs.notebook

# %%
# %%exercise layers.apply_layer
import stat

from minicontainer.linux import in_user_namespace, open_in, tar


def apply_layer(archive, directory):
    """Unpack a layer, an uncompressed tar, into the empty `directory`, in the form that overlayfs takes."""
    # SOLUTION BEGIN
    opaque = "user.overlay.opaque" if in_user_namespace() else "trusted.overlay.opaque"
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def place(name):
        """A path to an entry that no link on the way can lead elsewhere."""
        *above, last = [part for part in name.split("/") if part not in ("", ".")] or ["."]
        if ".." in (*above, last):
            raise ValueError(f"{name!r} leads out of the layer")
        return f"/proc/self/fd/{open_in(top, '/'.join(above) or '.', os.O_RDONLY | os.O_DIRECTORY)}", last

    marks, directories = [], []
    for entry in tar.read(archive):
        parent, name = place(entry.name)
        path = f"{parent}/{name}"
        if name.startswith(".wh."):
            marks.append((parent, name))
            continue
        if entry.kind == tar.DIRECTORY:
            if name != ".":
                os.mkdir(path, 0o700)
            directories.append((path, entry))
            continue
        if entry.kind == tar.LINK:
            os.link("/".join(place(entry.link)), path, follow_symlinks=False)
            continue
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, path)
        elif entry.kind == tar.FIFO:
            os.mkfifo(path)
        else:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            entry.write_to(file)
            os.close(file)
        dress(path, entry)
    for parent, name in marks:
        hidden = f"{parent}/{name.removeprefix('.wh.')}"
        if name == ".wh..wh..opq":
            os.setxattr(parent, opaque, b"y")
        elif not os.path.lexists(hidden):
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
        elif stat.S_ISDIR(os.lstat(hidden).st_mode):
            os.setxattr(hidden, opaque, b"y")
    for path, entry in reversed(directories):
        dress(path, entry)
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


# %%
# %%exercise layers.stack
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
# %check 13
