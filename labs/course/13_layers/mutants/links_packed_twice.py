# mutant: packs each name of a file as a file of its own
# loses: test_pack
# diagnosis: has the file twice

# %%exercise layers.pack_layer
import stat

from minicontainer.linux import tar


def pack_layer(directory, archive):
    """Write what is in `directory`, a layer in the form that overlayfs takes, to `archive` as an uncompressed tar."""
    kinds = {stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO}
    writer = tar.Writer(archive)

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
        if kind == tar.SYMLINK:
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
