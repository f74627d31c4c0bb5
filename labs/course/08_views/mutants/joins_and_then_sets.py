# mutant: goes in first, and wants to set the offsets then
# loses: test_own_time_namespace, test_offsets, test_backwards, test_nothing_but_the_time_namespace
# diagnosis: Permission denied|EACCES

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    unshare(CLONE_NEWTIME)
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWTIME)
    os.close(namespace)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {monotonic} {monotonic_nanoseconds}\n")
        offsets.write(f"boottime {boottime} {boottime_nanoseconds}\n")
