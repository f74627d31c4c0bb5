# mutant: makes no namespace where there is nothing to move
# loses: test_own_time_namespace
# diagnosis: with no offsets one was to be made

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    if not any((monotonic, boottime, monotonic_nanoseconds, boottime_nanoseconds)):
        return
    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {monotonic} {monotonic_nanoseconds}\n")
        offsets.write(f"boottime {boottime} {boottime_nanoseconds}\n")
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWTIME)
    os.close(namespace)
