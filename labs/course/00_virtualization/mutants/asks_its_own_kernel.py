# mutant: asks its own kernel, which is the container's too, and no machine's
# loses: test_kernel
# diagnosis: the kernel under the one who measures

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
            return {"pid": process.pid, "kernel": os.uname().release, "milliseconds": passed}
