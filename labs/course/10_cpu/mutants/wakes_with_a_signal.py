# mutant: wakes each process with a signal
# loses: test_thaw
# diagnosis: A signal does not wake who is frozen

# %%exercise freezer.thaw
def thaw(group):
    import signal

    from minicontainer.linux.cgroups import read

    _, directory = group["freezer"]
    for pid in read(f"{directory}/cgroup.procs").split():
        os.kill(int(pid), signal.SIGCONT)
