# mutant: forgets that a directory is opaque
# loses: test_pack
# diagnosis: says that the directory hides is opaque

# %%exercise layers.pack_layer
import stat

from minicontainer.linux import tar


def pack_layer(directory, archive):
    """Write what is in `directory`, a layer in the form that overlayfs takes, to `archive` as an uncompressed tar."""
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
            writer.add(entry)
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
