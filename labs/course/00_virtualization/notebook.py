# %%
# %load_ext labs.notebook

# %%
# %%exercise measuring.time_start
import subprocess
import time
from collections.abc import Sequence


def time_start(args: Sequence[str]) -> dict[str, int | str]:
    """Start a program, wait until it says "kernel RELEASE", leave it running: its pid, its kernel, the milliseconds."""
    # SOLUTION BEGIN
    begun = time.monotonic_ns()
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    for line in process.stdout:
        passed = time.monotonic_ns() - begun
        text = line.decode(errors="replace").strip()
        if text.startswith("kernel "):
            return {"pid": process.pid, "kernel": text.removeprefix("kernel "), "milliseconds": passed // 1_000_000}
    raise EOFError(f"{args[0]} has ended, and has not said which kernel it runs on")
    # SOLUTION END


# %%
# %%exercise measuring.memory_of
def memory_of(pid: int) -> int:
    """The bytes of memory that a process and all that descend from it take together."""
    # SOLUTION BEGIN
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kibibytes = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    children = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            children += [int(child) for child in file.read().split()]
    return kibibytes * 1024 + sum(memory_of(child) for child in children)
    # SOLUTION END


# %%
# %check 00
