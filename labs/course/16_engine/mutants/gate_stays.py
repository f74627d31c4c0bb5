# mutant: leaves the gate where it is
# loses: test_started, test_state
# diagnosis: started once more, and nobody was told|state says "created"

# %%exercise lifecycle.start
import select


def start(directory):
    found = state(directory)
    if found["status"] != "created":
        raise ValueError(f"{directory} is {found['status']}, not created")
    process = os.pidfd_open(found["pid"])
    line = os.open(f"{directory}/exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(process, select.POLLIN)
    heard = line in dict(poll.poll(300))
    complaint = os.read(line, 4096).decode() if heard else ""
    os.close(line)
    os.close(process)
    if complaint:
        raise OSError(complaint)
