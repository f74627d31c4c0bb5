# mutant: leaves uncovered what it has no null device for, and says nothing
# loses: test_null_device
# diagnosis: nobody was told: raise an OSError

# %%exercise masks.mask_paths
import stat


def mask_paths(paths):
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    for path in paths:
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k")
        elif os.path.exists(path) and stat.S_ISCHR(os.fstat(null).st_mode):
            mount(f"/proc/self/fd/{null}", path, None, MS_BIND)
    os.close(null)
