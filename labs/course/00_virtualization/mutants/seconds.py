# mutant: counts in seconds
# loses: test_until_ready
# diagnosis: or not in milliseconds

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.monotonic()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("kernel "):
            passed = round(time.monotonic() - begun)
            return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
