# mutant: ends what it has measured, and nobody can look at it any more
# loses: test_it_runs_on
# diagnosis: does not run any more

# %%exercise measuring.time_start
import subprocess
import time


def time_start(args):
    """Start a program, and wait until it says "kernel RELEASE"."""
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("kernel "):
            passed = (time.monotonic_ns() - begun) // 1_000_000
            process.kill()
            process.wait()
            return {"pid": process.pid, "kernel": line.removeprefix("kernel ").strip(), "milliseconds": passed}
