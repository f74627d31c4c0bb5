# mutant: joins an absolute name: os.path.join() throws away what stood before
# loses: test_nothing_outside
# diagnosis: an entry called "/

# %%exercise layers.apply_layer
import stat

from minicontainer.linux import in_user_namespace, open_in, tar


def apply_layer(archive, directory):
    """Unpack a layer, an uncompressed tar, into the empty `directory`, in the form that overlayfs takes."""
    opaque = "user.overlay.opaque" if in_user_namespace() else "trusted.overlay.opaque"
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def place(name):
        """A path to an entry that no link on the way can lead elsewhere."""
        if name.startswith("/"):
            return os.path.split(os.path.join(directory, name))
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


def dress(path, entry):
    """Give a file what its entry says that it has."""
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != tar.SYMLINK:
        os.chmod(path, entry.mode)
        for name, value in entry.xattrs.items():
            os.setxattr(path, name, value)
    os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
