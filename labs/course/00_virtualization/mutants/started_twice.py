# mutant: starts it once to hear, and once more to time it
# loses: test_it_runs_on
# diagnosis: started 2 times

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    for _ in range(2):
        begun = time.monotonic_ns()
        process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("kernel "):
                passed = (time.monotonic_ns() - begun) // 1_000_000
                break
    return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
