# mutant: kills, whatever signal was asked for
# loses: test_killed
# diagnosis: it got another signal

# %%exercise lifecycle.kill
import signal


def kill(directory, number=signal.SIGTERM):
    if "pid" not in (found := state(directory)):
        raise ValueError(f"{directory} has stopped")
    process = os.pidfd_open(found["pid"])
    try:
        if "pid" not in state(directory):
            raise ValueError(f"{directory} has stopped")
        signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)
