# mutant: has learned from the UTS namespace that a new one begins as a copy, and makes it one
# loses: test_segments
# diagnosis: a segment of shared memory that was made|it has to begin empty

# %%exercise ipc.private_queues
from minicontainer.linux.ipc import IPC_CREAT, shmget


def private_queues():
    with open("/proc/sysvipc/shm") as lines:
        old = [line.split() for line in list(lines)[1:]]
    unshare(CLONE_NEWIPC)
    for key, _, _, size, *_ in old or [[1, 0, 0, 4096]]:
        shmget(int(key), int(size), IPC_CREAT)
