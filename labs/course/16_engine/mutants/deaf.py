# mutant: opens the gate, and does not listen
# loses: test_not_executed
# diagnosis: returned as if it ran

# %%exercise lifecycle.start
import select


def start(directory):
    found = state(directory)
    if found["status"] != "created":
        raise ValueError(f"{directory} is {found['status']}, not created")
    process = os.pidfd_open(found["pid"])
    line = os.open(f"{directory}/exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.unlink(f"{directory}/exec.fifo")
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(process, select.POLLIN)
    poll.poll()
    os.close(line)
    os.close(process)
