# mutant: stops the clock when the program was started, and not when it is ready
# loses: test_until_ready
# diagnosis: a program that was started is not one that is ready

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    passed = (time.monotonic_ns() - begun) // 1_000_000
    for line in process.stdout:
        if line.startswith("kernel "):
            return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
