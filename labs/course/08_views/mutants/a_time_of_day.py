# mutant: writes what the clock is to say, and not by how much it is to be moved
# loses: test_offsets, test_backwards
# diagnosis: has to be the offset, in seconds, and not a time|was to be moved by

# %%exercise time.offset_clocks
def offset_clocks(monotonic=0, boottime=0, monotonic_nanoseconds=0, boottime_nanoseconds=0):
    """Give the calling process a time namespace whose clocks are so far ahead of the host's."""
    import time

    unshare(CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write(
            f"monotonic {int(time.clock_gettime(time.CLOCK_MONOTONIC)) + monotonic} {monotonic_nanoseconds}\n"
        )
        offsets.write(f"boottime {int(time.clock_gettime(time.CLOCK_BOOTTIME)) + boottime} {boottime_nanoseconds}\n")
    namespace = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWTIME)
    os.close(namespace)
