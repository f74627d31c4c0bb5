# mutant: mounts whatever is called /dev/null (CVE-2025-31133)
# loses: test_null_device
# diagnosis: who made the image chose

# %%exercise masks.mask_paths
def mask_paths(paths):
    for path in paths:
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k")
        elif os.path.exists(path):
            mount("/dev/null", path, None, MS_BIND)
