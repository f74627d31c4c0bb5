# mutant: shows the container the whole /dev of the host
# loses: test_dev
# diagnosis: dev in there is the host's own /dev, bound

# %%exercise mount.mount_proc_and_dev
def mount_proc_and_dev(root):
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("/dev", f"{root}/dev", None, MS_BIND | MS_REC)
    mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    mount("shm", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777")
