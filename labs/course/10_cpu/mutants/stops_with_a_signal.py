# mutant: stops each process with a signal
# loses: test_freeze, test_freeze_waits
# diagnosis: is stopped by a signal \(State T\)

# %%exercise freezer.freeze
def freeze(group):
    import signal

    from minicontainer.linux.cgroups import read

    _, directory = group["freezer"]
    for pid in read(f"{directory}/cgroup.procs").split():
        os.kill(int(pid), signal.SIGSTOP)
