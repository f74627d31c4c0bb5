# mutant: ends what is frozen, for somebody to start it anew
# loses: test_thaw
# diagnosis: to thaw is to go on, not to begin again

# %%exercise freezer.thaw
def thaw(group):
    import signal

    from minicontainer.linux.cgroups import read, write

    version, directory = group["freezer"]
    for pid in read(f"{directory}/cgroup.procs").split():
        os.kill(int(pid), signal.SIGKILL)
    if version == 2:
        write(f"{directory}/cgroup.freeze", 0)
    else:
        write(f"{directory}/freezer.state", "THAWED")
