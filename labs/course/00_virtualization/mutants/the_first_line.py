# mutant: takes the first line for the one, as it was in the example
# loses: test_until_ready, test_kernel
# diagnosis: until it says that it is ready|a machine writes other lines

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    passed = (time.monotonic_ns() - begun) // 1_000_000
    return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
