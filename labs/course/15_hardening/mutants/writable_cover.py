# mutant: covers a directory with one that can be written to
# loses: test_masked
# diagnosis: can be written to

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
            mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        elif os.path.exists(path):
            mount(f"/proc/self/fd/{null}", path, None, MS_BIND)
    os.close(null)
