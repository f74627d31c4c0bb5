# mutant: leaves the nanoseconds out
# loses: test_backwards
# diagnosis: and \d+ ns, and is moved by

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {monotonic} 0\n")
        offsets.write(f"boottime {boottime} 0\n")
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWTIME)
    os.close(namespace)
