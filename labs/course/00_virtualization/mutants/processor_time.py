# mutant: takes the clock of the processor, which stands still while one waits
# loses: test_until_ready
# diagnosis: does not count while one waits

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.process_time_ns()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("kernel "):
            passed = (time.process_time_ns() - begun) // 1_000_000
            return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
