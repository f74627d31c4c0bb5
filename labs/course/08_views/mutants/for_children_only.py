# mutant: thinks that unshare(2) moves its caller, as it does for the other kinds
# loses: test_own_time_namespace, test_backwards, test_nothing_but_the_time_namespace
# diagnosis: does not move its caller|the time namespace that it began in|no merit

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(f"monotonic {monotonic} {monotonic_nanoseconds}\n")
        offsets.write(f"boottime {boottime} {boottime_nanoseconds}\n")
