# mutant: leaves the end of the line at the kernel's name
# loses: test_kernel
# diagnosis: the end of the line does not belong to it

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith(b"kernel "):
            passed = (time.monotonic_ns() - begun) // 1_000_000
            kernel = line.removeprefix(b"kernel ").decode()
            return {"pid": process.pid, "kernel": kernel, "milliseconds": passed}
