# mutant: writes each clock the other's offset
# loses: test_offsets, test_backwards
# diagnosis: have each other\'s offset|was to be moved by

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {boottime} {monotonic_nanoseconds}\n")
        offsets.write(f"boottime {monotonic} {boottime_nanoseconds}\n")
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWTIME)
    os.close(namespace)
