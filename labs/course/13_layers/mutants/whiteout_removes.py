# mutant: takes a mark for an order: removes here what lies below
# loses: test_whiteouts
# diagnosis: nothing is there to hide it|never what its own layer brings

# %%exercise layers.apply_layer
import contextlib
import stat

from minicontainer.linux import in_user_namespace, open_in, tar


def apply_layer(archive, directory):
    """Unpack a layer, an uncompressed tar, into the empty `directory`, in the form that overlayfs takes."""
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
            elif os.path.isfile(hidden):
                os.unlink(hidden)
            elif os.path.lexists(hidden) and stat.S_ISDIR(os.lstat(hidden).st_mode):
                os.setxattr(hidden, opaque, b"y")
    for entry in reversed(directories):  # what is in a directory before itself
        with place(entry.name) as (parent, name):
            dress(f"{parent}/{name}", entry)
    os.close(top)


def make(path, entry):
    """Make a file, a symbolic link or a pipe."""
    if entry.kind == tar.SYMLINK:
        os.symlink(entry.link, path)
    elif entry.kind == tar.FIFO:
        os.mkfifo(path, 0o600)
    else:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        entry.write_to(file)
        os.close(file)


def dress(path, entry):
    """Give a file what its entry says that it has."""
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != tar.SYMLINK:
        os.chmod(path, entry.mode)
        for name, value in entry.xattrs.items():
            os.setxattr(path, name, value)
    os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
