# mutant: insists that everything on the list is there
# loses: test_masked
# diagnosis: ENOENT

# %%exercise masks.mask_paths
import errno
import stat


def mask_paths(paths):
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    about = os.fstat(null)
    if not stat.S_ISCHR(about.st_mode) or about.st_rdev != os.makedev(1, 3):
        raise OSError(errno.EPERM, "/dev/null is not the null device")
    for path in paths:
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k")
        else:
            mount(f"/proc/self/fd/{null}", path, None, MS_BIND)
    os.close(null)
